"""The result of a comparison of dense with sparse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Optional, Tuple

from deploy.benchmark.cost import Cost
from deploy.explain import Explanation
from deploy.graph import OnnxFile
from deploy.measure import AccuracyReport, ArmAccuracy, Comparison, Difference, Figure, LatencyReport, Ratio

__all__ = ["BenchmarkResult", "Timed", "describe_models", "quality_sentence"]


@dataclass(frozen=True)
class Timed:
    """Latency and speed-up at one batch."""

    latency: LatencyReport
    """Latency of all versions."""
    speedup: Mapping[str, Optional[Ratio]]
    """Speed-ups by name, such as ``A_to_C``; None where not measured."""
    verdict: str = ""
    """The explanation's verdict; empty without engines."""
    warnings: Tuple[str, ...] = ()
    """Sentences about causes for doubt in the numbers."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as ``benchmark --json`` prints them."""
        latency = self.latency.to_json()
        return {
            "latency": latency["arms"],
            "latency_batch": self.latency.regime.batch,
            "latency_repeat": latency["repeat"],
            "latency_regime": latency["regime"],
            "latency_timing": latency["timing"],
            "latency_unsettled": latency["unsettled"],
            "speedup": {name: asdict(ratio) if ratio else None for name, ratio in self.speedup.items()},
            "noise": latency["noise"],
            "verdict": self.verdict,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class BenchmarkResult:
    """A comparison of dense with sparse.

    ``explanation`` and the fields after it need engines. They describe the first batch, except ``cost``.
    """

    runtime: str
    """The runtime, its version and the device."""
    compared: Comparison
    """``dense`` and ``sparse`` on ONNX Runtime, and the engines of arms ``A``, ``B`` and ``C``."""
    timed: Sequence[Timed]
    """Latency and speed-up at each requested batch."""
    verdict: str
    """The result in a few sentences."""
    models: Mapping[str, Mapping[str, str]]
    """Path and SHA-256 of both files."""
    environment: Mapping[str, Any]
    """The machine, as ``describe_environment`` returns it."""
    explanation: Optional[Explanation] = None
    """The explanation for each layer."""
    layer_times: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Median milliseconds of each engine layer of arms B and C."""
    layer_noise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The relative difference between several measurements of the same layer."""
    engines: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Facts about each build, by arm."""
    gpu: Optional[Mapping[str, Any]] = None
    """The GPU's clocks, power and temperature during timing."""
    cost: Optional[Cost] = None
    """The engines of all batches, and their memory."""

    @property
    def speedup(self) -> Mapping[str, Optional[Ratio]]:
        """The speed-ups of the first batch."""
        return self.timed[0].speedup

    @property
    def accuracy(self) -> Optional[AccuracyReport]:
        """The accuracy of all versions; None if the outputs are no logits."""
        return self.compared.accuracy

    @property
    def judged(self) -> str:
        """The version that limits apply to: ``C``, or ``sparse`` without engines."""
        return "C" if "C" in self.compared.versions else "sparse"

    @property
    def warnings(self) -> Tuple[str, ...]:
        """Sentences about causes for doubt in the numbers, of all batches."""
        dense, sparse = self.models["dense"], self.models["sparse"]
        equal = dense["sha256"] == sparse["sha256"]
        same = [f"{dense['path']} and {sparse['path']} are the same file, so there is nothing to compare"] * equal
        texts = (*same, *self.compared.warnings, *(text for timed in self.timed for text in timed.warnings))
        return tuple(dict.fromkeys(texts))

    @property
    def difference(self) -> Optional[Difference]:
        """Top-1 accuracy of the sparse engine (without engines: of the sparse file) minus the dense file's."""
        return self.accuracy.arms[self.judged].difference if self.accuracy else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as ``benchmark --json`` prints them."""
        difference, compared = self.difference, self.compared.to_json()
        if compared["accuracy"]:
            compared["accuracy"]["difference"] = asdict(difference) if difference else None
        return {
            **self.timed[0].to_json(),
            "runtime": self.runtime,
            **compared,
            "further_batches": [timed.to_json() for timed in self.timed[1:]],
            "verdict": self.verdict,
            "models": self.models,
            "environment": self.environment,
            "explanation": self.explanation.to_json() if self.explanation else None,
            "layer_times": self.layer_times,
            "layer_noise": self.layer_noise,
            "engines": self.engines,
            "gpu": self.gpu,
            "cost": self.cost.to_json() if self.cost else None,
            "warnings": list(self.warnings),
        }


def describe_models(dense: OnnxFile, sparse: OnnxFile) -> dict[str, dict[str, str]]:
    """Return the path and the SHA-256 of both files."""
    files = {"dense": dense, "sparse": sparse}
    return {name: {"path": str(file.path), "sha256": file.sha256} for name, file in files.items()}


def quality_sentence(compared: Comparison, version: str) -> str:
    """Return sentences with the accuracy or else the output errors of a sparse version, and with a metric's figures."""
    sentences = []
    if compared.accuracy:
        sentences.append(_accuracy_sentence(compared.accuracy.arms["dense"], compared.accuracy.arms[version]))
    elif compared.outputs:
        errors = compared.outputs.relative_errors[version]
        shown = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        sentences.append(f"Relative errors of the outputs on {compared.outputs.samples} images: {shown}.")
    for name, figure in (compared.metrics or {}).items():
        sentences.append(_figure_sentence(name, figure, version))
    return " ".join(sentences)


def _figure_sentence(name: str, figure: Figure, version: str) -> str:
    gap = figure.differences[version]
    text = f"{name} {figure.values['dense']:.4g} dense, {figure.values[version]:.4g} sparse"
    if gap is None:
        return f"{text}, {figure.samples} images."
    return f"{text} ({_interval(gap, '.3g')}, {figure.samples} images): {_judgement(gap)}."


def _interval(gap: Difference, form: str, unit: str = "") -> str:
    return f"{gap.value:+{form}}{unit}, 95 % interval {gap.low:+{form}} to {gap.high:+{form}}"


def _judgement(gap: Difference) -> str:
    return "lower" if gap.high < 0 else "higher" if gap.low > 0 else "no statistically significant difference"


def _accuracy_sentence(dense: ArmAccuracy, sparse: ArmAccuracy) -> str:
    """Return a sentence with both accuracies and their difference."""
    if dense.top1 is None or sparse.top1 is None or sparse.difference is None:
        return (
            f"Accuracy is unknown without labels; the sparse model's top-1 class differs on "
            f"{sparse.disagreement:.2f} % of {sparse.samples} images."
        )
    gap = sparse.difference
    return (
        f"Top-1 accuracy {dense.top1:.2f} % dense, {sparse.top1:.2f} % sparse "
        f"({_interval(gap, '.2f', ' points')}, {sparse.samples} images): {_judgement(gap)}."
    )
