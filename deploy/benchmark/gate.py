"""Limits that a comparison must meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, List, Optional

from deploy.measure import Ratio

__all__ = ["Limits"]

_TAIL = 0.025  # above a 95 % interval


@dataclass(frozen=True)
class Limits:
    """What a sparse version may lose, and what it must gain."""

    max_drop: Mapping[str, float] = field(default_factory=dict)
    """The largest loss by figure: ``top1`` in percentage points, a metric's figures in their own units."""
    disagreement: Optional[float] = None
    """The largest percentage of images whose top-1 class differs from the dense version's."""
    min_speedup: Optional[float] = None
    """The smallest speed-up of the sparse engine over the dense one."""
    on_bound: bool = False
    """Whether the worse end of the 95 % interval must meet the limits, and not only the measured value."""

    def __bool__(self) -> bool:
        return bool(self.max_drop) or self.disagreement is not None or self.min_speedup is not None

    def verdict(self, failures: Sequence[str]) -> dict[str, Any]:
        """Return ``passed``, None without limits, and ``failures``, as commands print them."""
        return {"passed": not failures if self else None, "failures": list(failures)}

    def quality_failures(self, compared: Mapping[str, Any], version: str) -> List[str]:
        """Return a sentence for each limit of quality that a version misses.

        Args:
            compared: The JSON of a :class:`~deploy.measure.Comparison`.
            version: Which version is judged.

        Example:
            >>> arm = {"difference": {"value": -0.75, "low": -1.5, "high": 0.0}, "disagreement": 1.0, "samples": 400}
            >>> compared = {"accuracy": {"sparse": arm}, "metrics": None}
            >>> Limits({"top1": 0.5}).quality_failures(compared, "sparse")
            ['top-1 accuracy of sparse fell by 0.75 points, 0.5 are allowed']
            >>> Limits({"top1": 1}, on_bound=True).quality_failures(compared, "sparse")
            ['top-1 accuracy of sparse fell by up to 1.5 points, 1 are allowed']
        """
        return [*self._drops(compared, version), *self._disagreement(compared, version)]

    def speedup_failures(self, speedup: Optional[Ratio], runtime: str) -> List[str]:
        """Return a sentence if the speed-up is too small, or was not measured."""
        if self.min_speedup is None:
            return []
        if speedup is None:
            return [f"{runtime} has no sparse kernels, so a speed-up cannot be judged here"]
        found = speedup.low if self.on_bound else speedup.ratio
        if found >= self.min_speedup:
            return []
        return [f"the speed-up is {self._at_worst('at least ')}{found:.2f}, {self.min_speedup:g} is required"]

    def _drops(self, compared: Mapping[str, Any], version: str) -> Iterator[str]:
        accuracy, metrics = compared.get("accuracy") or {}, compared.get("metrics") or {}
        for name, limit in self.max_drop.items():
            if name == "top1":
                difference = accuracy.get(version, {}).get("difference")
                what, unit, higher_is_better = "top-1 accuracy", " points", True
            elif name in metrics:
                difference = metrics[name]["versions"].get(version, {}).get("difference")
                what, unit, higher_is_better = name, "", metrics[name]["higher_is_better"]
            else:
                figures = ", ".join(metrics) or "none"
                yield f"the loss of {name} cannot be judged: the metric's figures are {figures}"
                continue
            if difference is None:
                yield f"the loss of {what} of {version} cannot be judged: {self._obstacle(name, accuracy)}"
                continue
            value = difference[("low" if higher_is_better else "high") if self.on_bound else "value"]
            loss, verb = (-value, "fell") if higher_is_better else (value, "rose")
            if loss > limit:
                yield f"{what} of {version} {verb} by {self._at_worst('up to ')}{loss:.3g}{unit}, {limit:g} are allowed"

    def _disagreement(self, compared: Mapping[str, Any], version: str) -> Iterator[str]:
        if self.disagreement is None:
            return
        arm = (compared.get("accuracy") or {}).get(version)
        if not arm:
            yield f"the disagreement of {version} cannot be judged: the outputs are no logits"
            return
        found = arm["disagreement"]
        if self.on_bound:
            found = _upper_limit(found, arm["samples"])
        if found > self.disagreement:
            yield (
                f"{self._at_worst('up to ')}{found:.3g} % of the images change class in {version}, "
                f"{self.disagreement:g} % may"
            )

    @staticmethod
    def _obstacle(name: str, accuracy: Mapping[str, Any]) -> str:
        if name != "top1":
            return "there are too few images"
        return "the images have no labels" if accuracy else "the outputs are no logits"

    def _at_worst(self, words: str) -> str:
        return words if self.on_bound else ""


def _upper_limit(percent: float, samples: int) -> float:
    """Return the upper end of Clopper and Pearson's 95 % interval of a percentage of samples."""
    from scipy.special import betaincinv  # slow to import

    count = round(percent * samples / 100)
    return 100.0 if count == samples else 100 * float(betaincinv(count + 1, samples - count, 1 - _TAIL))
