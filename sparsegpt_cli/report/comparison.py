"""Two runs of one network side by side."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from sparsegpt_cli.report.accuracy import NOT_MEASURED, Arm
from sparsegpt_cli.report.charts import LayerPoint
from sparsegpt_cli.report.fields import Fields
from sparsegpt_cli.report.formats import DASH, count, duration, fixed, percent, shape, significant
from sparsegpt_cli.report.summary import Summary
from sparsegpt_cli.report.view import View, read_run
from sparsegpt_core.errors import InputError
from sparsegpt_core.text import printable

__all__ = ["Comparison", "LayerPair", "compare_runs"]

_ONE = {"A": (True, False), "B": (False, True)}  # which runs pruned a layer
_INPUTS = ("tool", "model", "data", "settings", "environment")


@dataclass(frozen=True)
class LayerPair:
    """One layer in both runs."""

    first: Fields
    """The layer in run A."""
    second: Fields
    """The layer in run B."""

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.first.text("name")

    @property
    def errors(self) -> tuple[float | None, float | None]:
        """The output error in each run; None: dense, or not measured."""
        return self.first.number("relative_error"), self.second.number("relative_error")

    @property
    def ratio(self) -> float | None:
        """The error in run B divided by that in run A; None without both."""
        first, second = self.errors
        return second / first if first and second is not None else None

    @property
    def pruned(self) -> tuple[bool, bool]:
        """Whether each run pruned the layer."""
        return self.first.text("status") == "pruned", self.second.text("status") == "pruned"


class Comparison:
    """Two runs of one network, A and B.

    Args:
        folders: The folders of the runs.
        views: What is in them.
    """

    def __init__(self, folders: tuple[Path, Path], views: tuple[View, View]) -> None:
        self.views = views
        self.folders = tuple(printable(str(folder)) for folder in folders)

    @property
    def title(self) -> str:
        """The network."""
        return self.views[0].prune.child("model").text("spec") or "Model"

    @property
    def runs(self) -> list[tuple[str, str]]:
        """(A or B, its folder, date and version)."""
        found = []
        for name, folder, view in zip("AB", self.folders, self.views, strict=True):
            tool = view.prune.child("tool")
            parts = (folder, view.prune.text("created"), f"{tool.text('name')} {tool.text('version')}".strip())
            found.append((name, " · ".join(filter(None, parts))))
        return found

    @property
    def verdict(self) -> str:
        """The comparison in a few sentences."""
        first, second = (len(view.pruned) for view in self.views)
        layers = f"A prunes {first} of {len(self.layers)} layers, B prunes {second}."
        return " ".join(filter(None, (layers, self._classes, self._errors, self._speed)))

    @property
    def _classes(self) -> str:
        first, second = ((view.result or NOT_MEASURED).accuracy for view in self.views)
        in_a, in_b = first.number("disagreement"), second.number("disagreement")
        if in_a is None or in_b is None:
            return ""
        images = f"{count(first.number('samples'))} held-out images"
        return f"A changes the class of {fixed(in_a, 2, '%')} of {images}, B of {fixed(in_b, 2, '%')}."

    @property
    def _errors(self) -> str:
        ratios = [pair.ratio for pair in self.layers if pair.ratio is not None]
        if not ratios:
            return ""
        share = percent(statistics.median(ratios), 0)
        return f"In the median layer that both prune, the output error of B is {share} of A's."

    @property
    def _speed(self) -> str:
        first, second = (view.prediction.number("bound") for view in self.views)
        if first is None or second is None:
            return ""
        return f"The estimated speed-up is {_times(first)} for A and {_times(second)} for B."

    @property
    def warnings(self) -> list[str]:
        """What makes the numbers of the two runs hard to compare."""
        parts = {name.partition(".")[0] for name, *_ in self.differences}
        digests = {view.prune.child("model").text("weights_sha256") for view in self.views}
        found = ["The runs pruned different weights."] if len(digests) > 1 else []
        if "data" in parts:
            found.append("The runs used different data: errors and accuracies may be of different images.")
        return found

    @property
    def differences(self) -> list[tuple[str, str, str]]:
        """(Name, value in A, value in B) of all inputs and settings that differ."""
        found = []
        for part in _INPUTS:
            first, second = (dict(view.prune.child(part).flat()) for view in self.views)
            values = [(key, first.get(key, DASH), second.get(key, DASH)) for key in {**first, **second}]
            found += [(f"{part}.{key}", a, b) for key, a, b in values if a != b]
        return found

    @property
    def results(self) -> list[tuple[str, str, str]]:
        """(Name, value in A, value in B) of what at least one run measured."""
        first, second = map(_results, self.views)
        rows = [(name, first.get(name, DASH), second.get(name, DASH)) for name in {**first, **second}]
        return [row for row in rows if row[1:] != (DASH, DASH)]

    @property
    def arms(self) -> list[Arm]:
        """The accuracies of both runs."""
        return [
            replace(arm, name=f"{run}:\N{NO-BREAK SPACE}{arm.name}")
            for run, view in zip("AB", self.views, strict=True)
            for arm in view.arms
        ]

    @property
    def layers(self) -> list[LayerPair]:
        """All layers, in the running order of A."""
        others = {layer.text("name"): layer for layer in self.views[1].layers}
        return [LayerPair(layer, others[layer.text("name")]) for layer in self.views[0].layers]

    @property
    def rows(self) -> dict[str, str]:
        """The ids of the rows in the table of layers, by layer."""
        return self.views[0].rows

    @property
    def pruned_once(self) -> list[tuple[str, list[str]]]:
        """(A or B, the layers that only this run pruned); empty if both pruned the same."""
        only = [(run, [pair.name for pair in self.layers if pair.pruned == want]) for run, want in _ONE.items()]
        return [(run, names) for run, names in only if names]

    @property
    def points(self) -> list[LayerPoint]:
        """The rows of the chart of errors."""
        return [
            LayerPoint(pair.name, None, pair.errors[1], pair.errors[0], f"layer-{place}")
            for place, pair in enumerate(self.layers)
        ]


def compare_runs(first: Path, second: Path) -> Comparison:
    """Read two run folders.

    Raises:
        InputError: A folder is not a run, or the runs pruned different networks.
    """
    comparison = Comparison((first, second), (read_run(first), read_run(second)))
    shapes = [
        {layer.text("name"): shape(layer.integers("shape")) for layer in view.layers} for view in comparison.views
    ]
    for name in {**shapes[0], **shapes[1]}:
        found = [each.get(name, "missing") for each in shapes]
        if found[0] != found[1]:
            raise InputError(
                f"{first} and {second} are runs of different networks: {name} is {found[0]} in the first and "
                f"{found[1]} in the second",
                "Give two runs of one network.",
            )
    return comparison


def _results(view: View) -> dict[str, str]:
    """Return what a run measured, by name."""
    summary, gain = Summary(view), view.benchmark.gain
    dense, result = (arm or NOT_MEASURED for arm in (view.reference, view.result))
    low, high = fixed(gain.number("low")), fixed(gain.number("high"))
    return {
        "Layers pruned": f"{len(view.pruned)} of {len(view.layers)}",
        "Weights that are zero": percent(view.zeros),
        "Top-1 accuracy, dense": fixed(dense.accuracy.number("top1"), 2, "%"),
        "Top-1 accuracy, pruned": fixed(result.accuracy.number("top1"), 2, "%"),
        "Images that change class": fixed(result.accuracy.number("disagreement"), 2, "%"),
        **{f"Relative error of {name}": significant(error, 2) for name, error in summary.output_errors},
        **dict(summary.figures),
        "Speed-up, estimated": _times(view.prediction.number("bound")),
        "GPU of the estimate": view.prediction.text("gpu") or DASH,
        "Speed-up, measured": f"{_times(gain.number('ratio'))} ({low} … {high})" if gain else DASH,
        "Measured on": view.benchmark.runtime if gain else DASH,
        "Time to prune and export": duration(view.prune.child("seconds").number("total")),
    }


def _times(ratio: float | None) -> str:
    return DASH if ratio is None else f"{fixed(ratio)}×"
