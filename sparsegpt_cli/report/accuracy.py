"""The accuracy of a model and its pruned variants, as prune-export and benchmark record it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsegpt_cli.report.fields import Fields
from sparsegpt_cli.report.formats import count, fixed, interval, signed

__all__ = ["Arm", "accuracy_sentence", "read_arms"]


@dataclass(frozen=True)
class Arm:
    """One variant of the model."""

    name: str
    """Its name in tables."""
    accuracy: Fields
    """``top1``, ``top5``, ``loss`` and more."""
    difference: Fields
    """Top-1 minus that of the dense model, in points: ``value``, ``low``, ``high``."""


def read_arms(accuracy: Fields, names: Mapping[str, str]) -> list[Arm]:
    """Return the named variants that were measured."""
    arms = []
    for key, name in names.items():
        if arm := accuracy.child(key):
            difference = arm.child("difference")
            if key == "sparse" and not difference:
                difference = accuracy.child("difference")  # benchmark.json has it next to its two arms
            arms.append(Arm(name, arm, difference))
    return arms


def accuracy_sentence(accuracy: Fields) -> str:
    """Return the change of the top-1 accuracy in a sentence."""
    dense, sparse = accuracy.child("dense"), accuracy.child("sparse")
    before, after = dense.number("top1"), sparse.number("top1")
    if before is None or after is None:
        return "Accuracy has not been measured."
    text = f"Top-1 accuracy went from {fixed(before)} to {fixed(after, 2, '%')}"
    difference = sparse.child("difference")
    low, high = difference.number("low"), difference.number("high")
    if low is not None and high is not None:
        text += f" ({signed(difference.number('value'))} points, 95\N{NO-BREAK SPACE}% interval {interval(difference)})"
    if samples := dense.number("samples"):
        text += f" on {count(samples)} held-out images"
        if difference.number("value") and low is not None and high is not None and low <= 0 <= high:
            text += ", too few to distinguish this change from none"
    return text + "."
