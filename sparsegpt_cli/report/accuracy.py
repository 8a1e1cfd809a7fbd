"""The accuracy of a model and its pruned variants, as prune-export and benchmark record it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsegpt_cli.report.fields import Fields
from sparsegpt_cli.report.formats import count, fixed, interval, signed

__all__ = ["NOT_MEASURED", "Arm", "accuracy_sentence", "read_arms"]


@dataclass(frozen=True)
class Arm:
    """One variant of the model."""

    key: str
    """Its name in the JSON file."""
    name: str
    """Its name in tables."""
    accuracy: Fields
    """``top1``, ``top5``, ``loss`` and more."""
    difference: Fields
    """Top-1 minus that of the dense model, in points: ``value``, ``low``, ``high``."""


NOT_MEASURED = Arm("", "", Fields({}, Path()), Fields({}, Path()))
"""A variant without an accuracy."""


def read_arms(accuracy: Fields, names: Mapping[str, str]) -> list[Arm]:
    """Return the named variants that were measured."""
    arms = []
    for key, name in names.items():
        if arm := accuracy.child(key):
            difference = arm.child("difference")
            if key == "sparse" and not difference:
                difference = accuracy.child("difference")  # benchmark.json has it next to its two arms
            arms.append(Arm(key, name, arm, difference))
    return arms


def accuracy_sentence(dense: Arm, other: Arm) -> str:
    """Return the change of the top-1 accuracy, and the images that change class, in a sentence."""
    before, after = dense.accuracy.number("top1"), other.accuracy.number("top1")
    disagreement, samples = other.accuracy.number("disagreement"), other.accuracy.number("samples")
    change = ""
    if disagreement is not None:
        change = f"{fixed(disagreement, 2, '%')} of {count(samples)} held-out images change class"
    if before is None or after is None:
        return f"{change}. Accuracy is unknown without labels." if change else "Accuracy has not been measured."
    text = f"Top-1 accuracy went from {fixed(before)} to {fixed(after, 2, '%')}"
    difference = other.difference
    low, high = difference.number("low"), difference.number("high")
    if low is not None and high is not None:
        text += f" ({signed(difference.number('value'))} points, 95\N{NO-BREAK SPACE}% interval {interval(difference)})"
        if low <= 0 <= high:
            text += ", no statistically significant difference"
    if change:
        return f"{text}. {change}."
    return f"{text} on {count(samples)} held-out images." if samples else f"{text}."
