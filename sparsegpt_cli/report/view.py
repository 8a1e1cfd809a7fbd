"""Reads a run folder, and makes the report's sentences and groups from it."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from sparsegpt_cli.report.accuracy import Arm, read_arms
from sparsegpt_cli.report.benchmark import Benchmark
from sparsegpt_cli.report.charts import Curve, LayerPoint
from sparsegpt_cli.report.fields import Fields
from sparsegpt_cli.report.formats import duration, size
from sparsegpt_cli.report.reasons import ReasonGroup, group_by_reason
from sparsegpt_cli.report.run_files import PrunedFile, RunFiles, read_run_files
from sparsegpt_core.errors import InputError
from sparsegpt_core.text import printable

__all__ = ["View", "read_run"]

_METHODS = {"sparsegpt": "SparseGPT", "magnitude": "Magnitude"}


@dataclass(frozen=True)
class View:
    """Everything that the template shows."""

    prune: Fields
    """``prune.json``."""
    benchmark: Benchmark
    """``benchmark.json``; empty if there is none of this run."""
    prediction: Fields
    """The predicted gain: ``predict.json``, else what ``prune-export`` estimated."""
    files: RunFiles
    """The files of the run."""
    engines: list[tuple[str, Fields]]
    """The plans of this run by name, with their sidecars."""
    stale: list[str]
    """Warnings about files of another run, which are left out."""

    @property
    def warnings(self) -> list[str]:
        """The warnings of the run and its benchmark, and about files of another run."""
        return [*self.prune.strings("warnings"), *self.benchmark.warnings, *self.stale]

    @property
    def layers(self) -> list[Fields]:
        """All layers in running order."""
        return self.prune.children("layers")

    @property
    def rows(self) -> dict[str, str]:
        """The ids of the rows in the table of all layers, by layer."""
        return {layer.text("name"): f"layer-{place}" for place, layer in enumerate(self.layers)}

    @property
    def pruned(self) -> list[Fields]:
        """The layers that were pruned."""
        return [layer for layer in self.layers if layer.text("status") == "pruned"]

    @property
    def zeros(self) -> float | None:
        """The fraction of zeros among the weights of all layers; None if no shapes are known."""
        weights = [(math.prod(layer.integers("shape")), layer.number("sparsity") or 0.0) for layer in self.layers]
        total = sum(number for number, _ in weights)
        return sum(number * sparsity for number, sparsity in weights) / total if total else None

    @property
    def tradeoff(self) -> Curve | None:
        """What more and more layers left dense cost and gain; None without a target."""
        curve = self.prune.child("tradeoff")
        points = curve.children("points")
        has_speedup, has_classes = (
            all(point.has(key) for point in points) for key in ("speedup", "expected_disagreement")
        )
        error = "expected_disagreement" if has_classes else "error"
        gain = "speedup" if has_speedup else "sparsity"
        predicted, measured = (
            [(point.number(gain) or 0.0, point.number(key) or 0.0) for point in rows]
            for rows, key in ((points, error), (curve.children("measured"), "disagreement"))
        )
        return Curve(predicted, measured, has_speedup, has_classes) if predicted and measured else None

    @property
    def target(self) -> str | None:
        """The largest disagreement, and what held-out and evaluation images show; None without a target."""
        target = self.prune.child("target")
        held_out, evaluation = target.child("held_out"), target.child("evaluation")
        limit = target.number("max_disagreement")
        images, changed, upper = map(held_out.number, ("images", "disagreement", "upper_limit"))
        if limit is None or images is None or changed is None or upper is None:
            return None
        text = (
            f"Target: at most {limit:g} % of images change class. On {images:g} held-out training images {changed:.2f} "
            f"% do, at most {upper:.2f} % with 95 % confidence."
        )
        samples, measured = map(evaluation.number, ("samples", "disagreement"))
        if samples is None or measured is None:
            return text
        outcome = "met" if measured <= limit else "missed"
        return f"{text} On {samples:g} evaluation images {measured:.2f} % do: the target is {outcome}."

    @property
    def method(self) -> str:
        """The display name of the method."""
        method = self.prune.child("settings").text("method")
        return _METHODS.get(method, method) or "Pruned"

    @property
    def arms(self) -> list[Arm]:
        """The accuracy that prune-export measured, and that of the fine-tuned network."""
        names = {
            "dense": "Dense",
            "dense.int8": "Dense, INT8",
            "magnitude": "Magnitude",
            "sparse": self.method,
            "sparse.int8": f"{self.method}, INT8",
        }
        return read_arms(self.prune.child("accuracy"), names) + self._finetuned

    @property
    def _finetuned(self) -> list[Arm]:
        """The accuracy of the fine-tuned network: of its file if that was benchmarked, else in PyTorch."""
        if file := self._benchmarked:
            precision = "" if file.precision == "fp32" else f", {file.precision.upper()}"
            return read_arms(self.benchmark.fields.child("accuracy"), {"sparse": f"Fine-tuned{precision}"})
        evaluation = self.files.evaluation
        return (
            [Arm("finetuned", "Fine-tuned, in PyTorch", evaluation, evaluation.child("difference"))]
            if evaluation
            else []
        )

    @property
    def _benchmarked(self) -> PrunedFile | None:
        """The file of the fine-tuned network that was benchmarked."""
        measured = self.benchmark.fields.child("models").child("sparse").text("sha256")
        return next((file for file in self.files.pruned if file.finetuned and file.sha256 == measured), None)

    @property
    def reference(self) -> Arm | None:
        """The dense network with which :attr:`result` is compared: of a benchmark, its file of the same precision."""
        measured = self.benchmark.fields if self._benchmarked else self.prune
        return next(iter(read_arms(measured.child("accuracy"), {"dense": "Dense"})), None)

    @property
    def result(self) -> Arm | None:
        """The accuracy of the network to deploy; None if it was not measured."""
        arms = {arm.key: arm for arm in self.arms}
        file = self.files.deployed
        if self.files.finetuned:
            return self._finetuned[0] if self._finetuned else None
        return arms.get("sparse.int8" if file and file.precision == "int8" else "sparse")

    @property
    def engine_notes(self) -> list[str]:
        """The remarks of the builds, each once."""
        return list(dict.fromkeys(engine.text("note") for _, engine in self.engines if engine.text("note")))

    @property
    def made(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Inputs, settings, time, memory and environment: titles with (name, value) rows."""
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
    def left_dense(self) -> list[ReasonGroup]:
        """The dense layers by reason, in the order in which the reasons first appear."""
        dense = [layer for layer in self.layers if layer.text("status") != "pruned"]
        return group_by_reason((layer.text("reason"), layer.text("name")) for layer in dense)

    @property
    def error_ratio(self) -> float | None:
        """The median over layers of the error relative to that of magnitude pruning."""
        pairs = [(layer.number("relative_error"), layer.number("magnitude_error")) for layer in self.pruned]
        ratios = [error / magnitude for error, magnitude in pairs if error is not None and magnitude]
        return statistics.median(ratios) if ratios else None

    @property
    def points(self) -> list[LayerPoint]:
        """The rows of the layer chart."""
        return [
            LayerPoint(
                layer.text("name"),
                layer.number("sparsity"),
                layer.number("relative_error"),
                layer.number("magnitude_error"),
                f"layer-{place}",
            )
            for place, layer in enumerate(self.layers)
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


def read_run(run: Path) -> View:
    """Read a run folder.

    Raises:
        InputError: There is no ``prune.json``, or a file is not JSON or has the wrong structure.
    """
    if not (run / "prune.json").is_file():
        raise InputError(f"there is no {run / 'prune.json'}", "Give the folder that sparsegpt-trt prune-export wrote.")
    files = read_run_files(run, _read_optional(run / "manifest.json").child("files"))
    prune = Fields.read(run / "prune.json")
    benchmark = _read_optional(run / "benchmark.json")
    engines = [(printable(path.stem), Fields.read(path)) for path in sorted(run.glob("*.plan.json"))]
    foreign = [name for name, engine in engines if not files.owns(engine.child("onnx"))]
    stale = [f"{name} was built from a file of another run: build it again" for name in foreign]
    if not all(files.owns(benchmark.child("models").child(name)) for name in ("dense", "sparse")):
        stale.append("benchmark.json measured files of another run: run the benchmark again")
        benchmark = Fields({}, run / "benchmark.json")
    current = [(name, engine) for name, engine in engines if name not in foreign]
    prediction = _read_optional(run / "predict.json")
    if Path(prediction.text("model")).name not in files.manifest:
        prediction = prune.child("prediction")
    return View(prune, Benchmark(benchmark), prediction, files, current, stale)


def _read_optional(path: Path) -> Fields:
    return Fields.read(path) if path.exists() else Fields({}, path)
