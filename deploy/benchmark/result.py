"""What a comparison of dense with sparse found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Optional, Tuple

from deploy.explain import Explanation
from deploy.graph import OnnxFile
from deploy.measure import AccuracyReport, ArmAccuracy, Difference, LatencyReport, Ratio

__all__ = ["BenchmarkResult", "Timed", "accuracy_sentence", "describe_models"]


@dataclass(frozen=True)
class Timed:
    """Latency and speed-up with one number of images in a call; ``verdict`` where engines tell one."""

    latency: LatencyReport
    speedup: Mapping[str, Optional[Ratio]]
    verdict: str = ""
    warnings: Tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as ``benchmark --json`` prints them."""
        latency = self.latency.to_json()
        return {
            "latency": latency["arms"],
            "latency_batch": self.latency.regime.batch,
            "latency_repeat": latency["repeat"],
            "latency_regime": latency["regime"],
            "latency_unsettled": latency["unsettled"],
            "speedup": {name: asdict(ratio) if ratio else None for name, ratio in self.speedup.items()},
            "noise": latency["noise"],
            "verdict": self.verdict,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class BenchmarkResult:
    """A comparison of dense with sparse.

    ``accuracy`` has ``dense`` and ``sparse`` on ONNX Runtime and, where engines were built, the arms ``A`` (dense
    weights), ``B`` (sparse weights, sparse flag off) and ``C`` (flag on). ``timed`` has the batches that were asked
    for, in their order; all else is told of the first. Its ``speedup`` maps ``A_to_C``, ``B_to_C`` and, on a runtime
    without sparse kernels, ``dense_to_sparse``; None stands for what was not measured. Of engines alone are
    ``explanation``, ``layer_times`` (of B and C, in milliseconds), ``engines`` (how each was built) and ``gpu`` (its
    clocks meanwhile).
    """

    runtime: str
    accuracy: AccuracyReport
    timed: Sequence[Timed]
    verdict: str
    models: Mapping[str, Mapping[str, str]]
    environment: Mapping[str, Any]
    explanation: Optional[Explanation] = None
    layer_times: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    engines: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    gpu: Optional[Mapping[str, Any]] = None

    @property
    def speedup(self) -> Mapping[str, Optional[Ratio]]:
        """The speed-ups of the first batch."""
        return self.timed[0].speedup

    @property
    def warnings(self) -> Tuple[str, ...]:
        """What makes the figures doubtful, of any batch."""
        return tuple(dict.fromkeys(text for timed in self.timed for text in timed.warnings))

    @property
    def difference(self) -> Optional[Difference]:
        """By how much what ships, the sparse engine or else the sparse file, is more accurate than the dense file."""
        arms = self.accuracy.arms
        return arms.get("C", arms["sparse"]).difference

    def to_json(self) -> dict[str, Any]:
        """Return the JSON that `benchmark --json` prints."""
        difference = self.difference
        return {
            **self.timed[0].to_json(),
            "runtime": self.runtime,
            "accuracy": {**self.accuracy.to_json(), "difference": asdict(difference) if difference else None},
            "further_batches": [timed.to_json() for timed in self.timed[1:]],
            "verdict": self.verdict,
            "models": self.models,
            "environment": self.environment,
            "explanation": self.explanation.to_json() if self.explanation else None,
            "layer_times": self.layer_times,
            "engines": self.engines,
            "gpu": self.gpu,
            "warnings": list(self.warnings),
        }


def describe_models(dense: OnnxFile, sparse: OnnxFile) -> dict[str, dict[str, str]]:
    """Return the path and the SHA-256 of both files."""
    files = {"dense": dense, "sparse": sparse}
    return {name: {"path": str(file.path), "sha256": file.sha256} for name, file in files.items()}


def accuracy_sentence(dense: ArmAccuracy, sparse: ArmAccuracy) -> str:
    """Say how accurate both are, and whether they differ."""
    if dense.top1 is None or sparse.top1 is None or sparse.difference is None:
        return (
            f"Accuracy is unknown without labels; the sparse model's top-1 class differs on "
            f"{sparse.disagreement:.2f} % of {sparse.samples} images."
        )
    gap = sparse.difference
    judgement = "lower" if gap.high < 0 else "higher" if gap.low > 0 else "no different beyond chance"
    return (
        f"Top-1 accuracy {dense.top1:.2f} % dense, {sparse.top1:.2f} % sparse "
        f"({gap.value:+.2f} points, 95 % interval {gap.low:+.2f} to {gap.high:+.2f}, "
        f"{sparse.samples} images): {judgement}."
    )
