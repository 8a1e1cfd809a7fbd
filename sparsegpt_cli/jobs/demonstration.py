"""The demo: all steps on scikit-learn's digits, by the functions that the commands call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calibration.training import TrainSettings
from deploy.builder import BuildResult, BuildSettings, build_engine
from export.audit import audit_model
from sparsegpt_cli.jobs.benchmarking import BenchmarkSettings, benchmark_files
from sparsegpt_cli.jobs.datasets import DataSource
from sparsegpt_cli.jobs.job import Job
from sparsegpt_cli.jobs.models import ModelSource, load
from sparsegpt_cli.jobs.pipeline import prune_export
from sparsegpt_cli.jobs.training import train_model
from sparsegpt_cli.messages import Messages, with_flags
from sparsegpt_cli.report import render_report
from sparsegpt_core.errors import MissingDependencyError
from sparsegpt_core.execution import find_device
from sparsegpt_core.files import write_json
from sparsegpt_core.settings import PruneSettings

__all__ = ["run_demo"]

_DATA = DataSource("digits")


def run_demo(out: Path, epochs: int, messages: Messages, seed: int = 0) -> dict[str, Any]:
    """Train ``cifar_cnn``, prune it by SparseGPT and by magnitude, export, audit, build engines, compare and report.

    Args:
        out: The folder to write to.
        epochs: Epochs of training.
        messages: Takes messages and progress.
        seed: Seed of the training and of all draws.

    Returns:
        ``rows``: one for each of dense, magnitude and sparse, with the difference to dense in percentage points;
        ``files``: their paths; and more.
    """
    checkpoint = out / "cifar_cnn.safetensors"
    settings = TrainSettings(epochs=epochs, batch_size=64, learning_rate=0.03, seed=seed)
    train_model(ModelSource("cifar_cnn"), _DATA, settings, checkpoint, messages)
    loaded, opened = load(ModelSource(weights=checkpoint), _DATA, messages, seed)
    device = find_device("cpu")
    job = Job(loaded, opened, PruneSettings(), device, eval_samples=0, seed=seed, command="sparsegpt-trt demo")
    with messages.progress() as progress:
        content = prune_export(job, out, progress)
        engines, notes = _engines(out, progress)
        benchmark = benchmark_files(
            out / "dense.onnx", out / "sparse.onnx", _DATA, BenchmarkSettings(eval_samples=0, seed=seed), progress
        )
    write_json(out / "benchmark.json", benchmark.to_json())
    report = render_report(out)
    arms = content["accuracy"]
    return {
        "rows": [_row(name, arms[name], out, engines.get(name)) for name in ("dense", "magnitude", "sparse")],
        "samples": arms["dense"]["samples"],
        "notes": [*content["warnings"], *notes],
        "files": content["files"],
        "report": str(report),
    }


def _engines(out: Path, progress: Any) -> tuple[dict[str, BuildResult], list[str]]:
    """Build both engines with the builder that is installed; return them and remarks."""
    built = {}
    try:
        for name in ("dense", "sparse"):
            built[name] = build_engine(
                out / f"{name}.fp16.onnx", out / f"{name}.plan", BuildSettings(sparse=name == "sparse"), progress
            )
    except MissingDependencyError as error:
        return built, [with_flags(f"no engines: {error}. {error.hint}")]
    return built, sorted({engine.note for engine in built.values()})


def _row(name: str, arm: dict[str, Any], out: Path, engine: BuildResult | None) -> dict[str, Any]:
    path = out / f"{name}.onnx"
    audit = audit_model(path)
    return {
        "model": name,
        "top1": f"{arm['top1']:.2f}",
        "difference": arm.get("difference"),
        "sparse": f"{audit.sparse_layers} of {len(audit.layers)}",
        "onnx": f"{path.stat().st_size / 1e6:.2f} MB",
        "engine": f"{engine.bytes / 1e6:.2f} MB" if engine else "-",
    }
