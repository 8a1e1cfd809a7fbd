"""Dense against sparse on ONNX Runtime: what pruning did to accuracy, and why its latency proves nothing."""

from __future__ import annotations

__all__ = [
    "BenchmarkResult",
    "Timed",
    "accuracy_sentence",
    "benchmark_onnx",
    "describe_models",
    "gate",
    "latency_images",
    "peek",
]

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Tuple

import numpy as np
import numpy.typing as npt

from deploy.accuracy import AccuracyReport, ArmAccuracy, Batch, Difference, compare_accuracy
from deploy.environment import environment
from deploy.latency import LatencyReport, Ratio, measure_latency
from deploy.optional import require
from deploy.session import OnnxSession, Session
from deploy.timing import HostTimer
from sparsegpt_core.artifacts import sha256
from sparsegpt_core.errors import DataError, InputError
from sparsegpt_core.progress import Progress, silent

if TYPE_CHECKING:
    from deploy.explain import Explanation

_CPU_NOTE = (
    "ONNX Runtime's CPU kernels do not use 2:4 zeros, so the latency measured here says nothing about a GPU: "
    "only an engine on a GPU with sparse tensor cores can show a speed-up."
)


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


def benchmark_onnx(
    dense: Path,
    sparse: Path,
    batches: Iterable[Batch],
    *,
    latency_batches: Sequence[int] = (),
    rounds: int = 20,
    iterations: int = 5,
    warmup: int = 3,
    threads: Optional[int] = None,
    seed: int = 0,
    progress: Progress = silent,
) -> BenchmarkResult:
    """Compare two ONNX files on ONNX Runtime's CPU.

    Args:
        dense: The reference.
        sparse: Its pruned version.
        batches: Evaluation images (N, C, H, W), normalised, with labels (N) or None.
        latency_batches: Images per timed call, one number after the other; none for the models' fixed batch, or 1.
        rounds: Rounds of latency; see ``measure_latency``.
        iterations: Timed calls per version and round.
        warmup: The least of untimed calls per version.
        threads: ONNX Runtime's threads; None for its choice.
        seed: Of the bootstrap.
        progress: Told of the stages ``accuracy`` and ``latency``.

    Raises:
        InputError: A file, the images or a count does not fit.
        NumericsError: A model gives NaN or infinity.
        MissingDependencyError: onnxruntime is not installed.
    """
    sessions = {"dense": OnnxSession(dense, threads), "sparse": OnnxSession(sparse, threads)}
    total = operator.length_hint(batches)
    first, batches = peek(batches)
    portions = [latency_images(sessions, first, batch) for batch in latency_batches or (None,)]
    accuracy = compare_accuracy(
        {name: session.run for name, session in sessions.items()}, batches, progress=progress, total=total
    )
    timed = []
    for images in portions:
        latency = measure_latency(
            {name: [HostTimer(partial(session.run, images), len(images))] for name, session in sessions.items()},
            rounds=rounds,
            iterations=iterations,
            warmup=warmup,
            seed=seed,
            progress=progress,
        )
        speedup = {"A_to_C": None, "B_to_C": None, "dense_to_sparse": latency.speedup("dense", "sparse")}
        timed.append(Timed(latency, speedup))
    return BenchmarkResult(
        runtime=f"onnxruntime {require('onnxruntime').__version__} CPU",
        accuracy=accuracy,
        timed=timed,
        verdict=f"{accuracy_sentence(accuracy.arms['dense'], accuracy.arms['sparse'])} {_CPU_NOTE}",
        models=describe_models(dense, sparse),
        environment=environment(),
    )


def gate(
    result: BenchmarkResult, max_drop: Optional[float] = None, min_speedup: Optional[float] = None
) -> Optional[str]:
    """Say why a result does not pass, or return None.

    Args:
        result: What was measured.
        max_drop: The most top-1 accuracy that may be lost, in percentage points.
        min_speedup: The least speed-up of the sparse engine over the dense one.
    """
    reasons = []
    difference, speedup = result.difference, result.speedup["A_to_C"]
    if max_drop is not None:
        if difference is None:
            reasons.append("without labels the loss of accuracy cannot be judged")
        elif not -difference.value <= max_drop:
            reasons.append(f"top-1 accuracy fell by {-difference.value:.2f} points, {max_drop:g} are allowed")
    if min_speedup is not None:
        if speedup is None:
            reasons.append(f"{result.runtime} has no sparse kernels, so a speed-up cannot be judged here")
        elif not speedup.ratio >= min_speedup:
            reasons.append(f"the speed-up is {speedup.ratio:.2f}, {min_speedup:g} is required")
    return "; ".join(reasons) or None


def peek(batches: Iterable[Batch]) -> Tuple[npt.NDArray[Any], Iterable[Batch]]:
    """Return the first batch's images, and all batches.

    Raises:
        DataError: There are none.
    """
    stream = iter(batches)
    first = next(stream, None)
    if first is None or not len(first[0]):
        raise DataError("there are no images to compare on", "Give --data with an evaluation split, or --eval-data.")
    return first[0], itertools.chain([first], stream)


def latency_images(
    sessions: Mapping[str, Session], images: npt.NDArray[Any], wanted: Optional[int], default: int = 1
) -> npt.NDArray[Any]:
    """Take real images for one timed call, over and over where there are too few.

    Args:
        sessions: What will be timed; some may have a fixed batch.
        images: To take from, (N, C, H, W).
        wanted: How many; None for the fixed batch, else ``default``.
        default: How many where nothing is wanted or fixed.

    Raises:
        InputError: A session's fixed batch is another.
    """
    fixed = {session.input_shape[0] for session in sessions.values() if session.input_shape[0] is not None}
    batch = wanted if wanted is not None else next(iter(fixed), default)
    if batch < 1 or fixed - {batch}:
        takes = " and ".join(map(str, sorted(fixed))) or "any number"
        raise InputError(f"latency cannot be measured with batches of {batch}", f"The models take {takes}.")
    return np.take(images, np.arange(batch) % len(images), axis=0)


def describe_models(dense: Path, sparse: Path) -> dict[str, dict[str, str]]:
    """Return the path and the SHA-256 of both files."""
    return {name: {"path": str(path), "sha256": sha256(path)} for name, path in (("dense", dense), ("sparse", sparse))}


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
