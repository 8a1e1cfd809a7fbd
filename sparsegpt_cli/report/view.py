"""What the report says: the files of a run folder, and the sentences and groups made from them."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from sparsegpt_cli.report.charts import LayerPoint
from sparsegpt_cli.report.fields import Fields, printable
from sparsegpt_cli.report.formats import count, duration, fixed, interval, signed, size
from sparsegpt_core.errors import InputError
from sparsegpt_core.reasons import Reason

__all__ = ["Arm", "LeftDense", "View", "read_run"]

_METHODS = {"sparsegpt": "SparseGPT", "magnitude": "Magnitude"}
_ARMS = {
    "A": "A: dense weights, sparse flag off",
    "B": "B: sparse weights, sparse flag off",
    "C": "C: sparse weights, sparse flag on",
}
_SPEEDUPS = {
    "A_to_C": "A to C: what pruning gains in all",
    "B_to_C": "B to C: what the sparse kernels gain",
    "dense_to_sparse": "dense to sparse",
}


@dataclass(frozen=True)
class Arm:
    """Accuracy of one variant of the model; ``difference`` is to the dense one."""

    name: str
    accuracy: Fields
    difference: Fields


@dataclass(frozen=True)
class LeftDense:
    """The layers that share a reason for being dense."""

    code: str
    advice: str
    layers: list[str]


@dataclass(frozen=True)
class View:
    """Everything the template shows; ``stale`` says what was left out because it is of another run."""

    prune: Fields
    benchmark: Fields
    files: Fields
    engines: list[tuple[str, Fields]]
    stale: list[str]

    @property
    def warnings(self) -> list[str]:
        """What the run noted, and what is not of this run."""
        return [*self.prune.strings("warnings"), *self.stale]

    @property
    def layers(self) -> list[Fields]:
        """All layers, in the network's order."""
        return self.prune.children("layers")

    @property
    def pruned(self) -> list[Fields]:
        """The layers that were pruned."""
        return [layer for layer in self.layers if layer.text("status") == "pruned"]

    @property
    def tradeoff(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]] | None:
        """Sparsity against the error foretold, and against the disagreement measured; None without a target."""
        curve = self.prune.child("tradeoff")
        foretold, measured = (
            [(point.number("sparsity") or 0.0, point.number(key) or 0.0) for point in curve.children(points)]
            for points, key in (("points", "error"), ("measured", "disagreement"))
        )
        return (foretold, measured) if foretold and measured else None

    @property
    def method(self) -> str:
        """The name of the method, as people write it."""
        method = self.prune.child("settings").text("method")
        return _METHODS.get(method, method) or "Pruned"

    @property
    def arms(self) -> list[Arm]:
        """Accuracy as prune-export measured it."""
        names = {"dense": "Dense", "magnitude": "Magnitude", "sparse": self.method}
        return _arms(self.prune.child("accuracy"), names)

    @property
    def benchmark_arms(self) -> list[Arm]:
        """Accuracy as benchmark measured it."""
        return _arms(self.benchmark.child("accuracy"), {"dense": "Dense", "sparse": "Sparse"})

    @property
    def gpu(self) -> bool:
        """Whether the benchmark ran on TensorRT, hence on a GPU."""
        return self.benchmark.text("runtime").lower().startswith("tensorrt")

    @property
    def latency(self) -> list[tuple[str, Fields]]:
        """The arms of the benchmark's latencies."""
        latency = self.benchmark.child("latency")
        return [(_ARMS.get(key, key), latency.child(key)) for key in latency]

    @property
    def speedups(self) -> list[tuple[str, Fields]]:
        """The ratios that were measured."""
        speedup = self.benchmark.child("speedup")
        return [(name, speedup.child(key)) for key, name in _SPEEDUPS.items() if speedup.child(key)]

    @property
    def engine_notes(self) -> list[str]:
        """What the builds noted, each once."""
        return list(dict.fromkeys(engine.text("note") for _, engine in self.engines if engine.text("note")))

    @property
    def made(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Settings, inputs, time and surroundings: titles with (name, value) rows."""
        seconds = self.prune.child("seconds")
        cost = [(key, duration(seconds.number(key))) for key in seconds]
        if (peak := self.prune.number("peak_memory_bytes")) is not None:
            cost.append(("peak memory", size(peak)))
        if spilled := self.prune.number("spilled_bytes"):
            cost.append(("activations written to disk", size(spilled)))
        parts = [(key.capitalize(), self.prune.child(key).flat()) for key in ("model", "data", "settings")]
        parts += [
            ("Time and memory, on the machine under Environment", cost),
            ("Environment", self.prune.child("environment").flat()),
        ]
        return [(title, rows) for title, rows in parts if rows]

    @property
    def left_dense(self) -> list[LeftDense]:
        """The dense layers by reason, in the order in which the reasons first appear."""
        groups: dict[str, list[str]] = {}
        for layer in self.layers:
            if layer.text("status") != "pruned":
                groups.setdefault(layer.text("reason"), []).append(layer.text("name"))
        return [LeftDense(code or "no reason recorded", advice(code), names) for code, names in groups.items()]

    @property
    def error_ratio(self) -> float | None:
        """The median over layers of the error as a fraction of magnitude pruning's."""
        pairs = [(layer.number("relative_error"), layer.number("magnitude_error")) for layer in self.pruned]
        ratios = [error / magnitude for error, magnitude in pairs if error is not None and magnitude]
        return statistics.median(ratios) if ratios else None

    @property
    def zeros(self) -> float | None:
        """The fraction of zeros among all weights of the listed layers."""
        sizes = [(math.prod(layer.integers("shape")), layer.number("sparsity") or 0.0) for layer in self.layers]
        total = sum(size for size, _ in sizes)
        return sum(size * sparsity for size, sparsity in sizes) / total if total else None

    @property
    def points(self) -> list[LayerPoint]:
        """The rows of the layer chart."""
        return [
            LayerPoint(
                layer.text("name"),
                layer.number("sparsity"),
                layer.number("relative_error"),
                layer.number("magnitude_error"),
            )
            for layer in self.layers
        ]

    @property
    def differences(self) -> list[tuple[str, float, float, float]]:
        """The rows of the accuracy chart."""
        rows = []
        for arm in self.arms:
            value, low, high = (arm.difference.number(key) for key in ("value", "low", "high"))
            if value is not None and low is not None and high is not None:
                rows.append((arm.name, value, low, high))
        return rows

    @property
    def verdict(self) -> list[str]:
        """The run in two or three sentences."""
        pattern = self.prune.child("settings").text("pattern")
        what = pattern if ":" in pattern else "pruned"
        total = len(self.layers)
        sentences = [f"{len(self.pruned)} of {total} {'layer is' if total == 1 else 'layers are'} {what}."]
        sentences.append(_accuracy_sentence(self.prune.child("accuracy")))
        if self.gpu:
            sentences.append(self.benchmark.text("verdict"))
        else:
            sentences.append("Speed on a GPU has not been measured.")
        return sentences


def read_run(run: Path) -> View:
    """Read what a run folder holds.

    Raises:
        InputError: There is no ``prune.json``, or a file is not JSON or not of the right structure.
    """
    if not (run / "prune.json").is_file():
        raise InputError(f"there is no {run / 'prune.json'}", "Give the folder that sparsegpt-trt prune-export wrote.")
    files = _read_optional(run / "manifest.json").child("files")
    hashes = {files.child(name).text("sha256") for name in files}
    benchmark = _read_optional(run / "benchmark.json")
    engines = [(printable(path.stem), Fields.read(path)) for path in sorted(run.glob("*.plan.json"))]
    foreign = [name for name, engine in engines if not _is_of(hashes, engine.child("onnx"))]
    stale = [f"{name} was built from a file of another run: build it again" for name in foreign]
    if not all(_is_of(hashes, benchmark.child("models").child(name)) for name in ("dense", "sparse")):
        stale.append("benchmark.json measured files of another run: run the benchmark again")
        benchmark = Fields({}, run / "benchmark.json")
    current = [(name, engine) for name, engine in engines if name not in foreign]
    return View(Fields.read(run / "prune.json"), benchmark, files, current, stale)


def _is_of(hashes: set[str], model: Fields) -> bool:
    """Whether a model is one of the run's files; so taken where either side has no record."""
    recorded = model.text("sha256")
    return not recorded or not hashes or recorded in hashes


def advice(code: str) -> str:
    """The sentence for a reason code; empty for a code of another version."""
    return Reason(code).advice if code in Reason.__members__ else ""


def _read_optional(path: Path) -> Fields:
    return Fields.read(path) if path.exists() else Fields({}, path)


def _arms(accuracy: Fields, names: dict[str, str]) -> list[Arm]:
    arms = []
    for key, name in names.items():
        if arm := accuracy.child(key):
            difference = arm.child("difference")
            if key == "sparse" and not difference:
                difference = accuracy.child("difference")  # benchmark.json has it beside its two arms
            arms.append(Arm(name, arm, difference))
    return arms


def _accuracy_sentence(accuracy: Fields) -> str:
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
            text += ", too few to tell that change from none"
    return text + "."
