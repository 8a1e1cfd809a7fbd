"""The main job: a trained network in; dense and sparse ONNX, their audit, comparison and report out."""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from calibration.sampling import calibration_batches
from deploy.accuracy import AccuracyReport, compare_accuracy
from deploy.environment import environment
from deploy.outputs import Outputs, OutputsReport, compare_outputs, gives_logits
from deploy.session import OnnxSession
from export.runtime import Runtime
from sparsegpt_cli.data import EvaluationBatches
from sparsegpt_cli.exporting import ExportedFile, Exporter, arm_name
from sparsegpt_cli.pruning import Job, Pruned, model_metadata, prune, pruning_metadata
from sparsegpt_cli.quantising import Quantisation
from sparsegpt_cli.report import render_report
from sparsegpt_cli.unfinished_run import LAYERS
from sparsegpt_core import __version__
from sparsegpt_core.artifacts import sha256, write_json
from sparsegpt_core.checkpoint import save_checkpoint, save_integers
from sparsegpt_core.errors import InputError
from sparsegpt_core.joint_quant import IntegerWeight
from sparsegpt_core.memory import peak_memory
from sparsegpt_core.progress import Progress, silent, timed
from sparsegpt_core.sequential import plan_layers, prune_model
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.torchrun import world_size

__all__ = ["prune_export"]

_PARITY_SAMPLES = 32


def prune_export(job: Job, out: Path, progress: Progress = silent, unfinished: Path | None = None) -> dict[str, Any]:
    """Prune, export, audit, compare and report.

    Args:
        job: What to do.
        out: The folder for ``dense.onnx``, ``sparse.onnx``, both as ``.fp16.onnx``, ``sparse.safetensors``,
            ``prune.json``, ``manifest.json`` and ``report.html``; with INT8 both as ``.int8.onnx`` and
            ``sparse.int8.safetensors``, with a baseline ``magnitude.onnx`` too.
            Nothing is put there before all of it is done.
        progress: Told of every stage.
        unfinished: A folder beside ``out`` for what is under way, where layers are found again after a kill; None makes
            a temporary one.

    Returns:
        What ``prune-export --json`` prints.

    Raises:
        SparseGPTError: Any stage failed; ``out`` is as it was.
    """
    with _staged(out, unfinished) as folder:
        content = _Run(job, folder, progress, unfinished and unfinished / LAYERS).run()
        write_json(folder / "prune.json", content)
        _write_manifest(folder, content["environment"]["versions"])
        render_report(folder)
    files = {"dense": "dense.onnx", "sparse": "sparse.onnx", "checkpoint": "sparse.safetensors"}
    files |= {"report": "report.html", "manifest": "manifest.json"}
    paths = {name: str(out / file) for name, file in files.items()}
    shown = ("layers", "accuracy", "outputs", "parity", "seconds", "peak_memory_bytes", "spilled_bytes", "warnings")
    return {"out": str(out), "files": paths, **{key: content[key] for key in shown}}


class _Run:
    """One run's stages, its clock and its warnings."""

    def __init__(self, job: Job, folder: Path, progress: Progress, finished: Path | None) -> None:
        self._job, self._folder, self._progress, self._finished = job, folder, progress, finished
        self._seconds: dict[str, float] = {}
        self._warnings: list[str] = []

    def run(self) -> dict[str, Any]:
        job, start = self._job, time.perf_counter()
        metadata = model_metadata(job.model, job.data)
        images = calibration_batches(job.data.training, self._parity_samples(), _PARITY_SAMPLES, job.seed)[0]
        plan_layers(job.model.module, images[:2], job.settings)  # a misfit shows before the first long stage
        exported = {"dense": self._export("dense", metadata, images, ())}
        if job.baseline and job.settings.method != "magnitude":
            exported["magnitude"] = self._export_baseline(images)
        pruned = prune(job, self._progress, self._folder, self._finished)
        self._seconds.update(pruned.seconds)
        self._warnings += pruned.warnings
        metadata = pruning_metadata(job, pruned.result)
        exported["sparse"] = self._export("sparse", metadata, images, metadata["pruned"], pruned.result.integers)
        checkpoint = self._folder / "sparse.safetensors"
        save_checkpoint(checkpoint, job.model.module.state_dict(), metadata)
        if job.int8:
            save_integers(checkpoint, pruned.result.integers)
        compared = self._compare(exported)
        self._seconds["total"] = time.perf_counter() - start
        return self._content(pruned, exported, compared)

    def _parity_samples(self) -> int:
        return min(_PARITY_SAMPLES, len(self._job.data.training))

    def _export(
        self,
        name: str,
        metadata: dict[str, Any],
        images: torch.Tensor,
        pruned: Sequence[str],
        integers: Mapping[str, IntegerWeight] | None = None,
    ) -> dict[str, ExportedFile]:
        """Write ``name.onnx`` and, unless it is only the baseline, the other precisions."""
        job = self._job
        precisions = ["fp32"] if name == "magnitude" else ["fp32", "fp16"]
        quantisation = None
        if job.int8 and name != "magnitude":
            precisions.append("int8")
            batches = calibration_batches(job.data.training, job.calibration_samples, _PARITY_SAMPLES, job.seed)
            quantisation = Quantisation(batches, integers or {})
        self._progress(f"export {name}", 0, len(precisions))
        with timed(self._seconds, "export"):
            exporter = Exporter(
                job.model.module,
                images,
                metadata,
                job.settings.pattern,
                pruned,
                job.export,
                quantisation,
                self._progress,
            )
            files: dict[str, ExportedFile] = {}
            for precision in precisions:
                files[precision] = exporter.write(self._folder / f"{arm_name(name, precision)}.onnx", precision)
                self._warnings += files[precision].warnings
                self._progress(f"export {name}", len(files), len(precisions))
        return files

    def _export_baseline(self, images: torch.Tensor) -> dict[str, ExportedFile]:
        """Prune a throw-away copy by magnitude and export it."""
        job = self._job
        settings = PruneSettings(
            job.settings.pattern, "magnitude", include=job.settings.include, exclude=job.settings.exclude
        )
        dense = job.model.module
        state = copy.deepcopy(dense.state_dict())
        try:
            result = prune_model(dense, [images], settings)
            metadata = pruning_metadata(replace(job, settings=settings), result)
            return self._export("magnitude", metadata, images, metadata["pruned"])
        finally:
            dense.load_state_dict(state)

    def _compare(self, exported: dict[str, dict[str, ExportedFile]]) -> AccuracyReport | OutputsReport | None:
        """Compare the files on the evaluation split, in ONNX Runtime, whose CPU kernels compute FP16 in FP32."""
        job, split = self._job, self._job.data.evaluation
        if split is None:
            self._warnings.append(
                f"accuracy is left out: {job.data.spec} has no evaluation split; --eval-data names one"
            )
            return None
        batches = EvaluationBatches(split, job.eval_samples, job.batch_size, job.seed)
        paths = {
            arm_name(name, precision): file.path
            for name, files in exported.items()
            for precision, file in files.items()
            if precision != "fp16"
        }
        with timed(self._seconds, "evaluate"):
            if gives_logits(paths["dense"]):
                sessions = {name: OnnxSession(path).run for name, path in paths.items()}
                return compare_accuracy(sessions, batches, progress=self._progress, total=len(batches))
            self._warnings.append("accuracy is left out: the outputs are no logits; their relative errors are compared")
            runs = {name: _outputs(path) for name, path in paths.items()}
            return compare_outputs(runs, batches, progress=self._progress, total=len(batches))

    def _content(
        self,
        pruned: Pruned,
        exported: dict[str, dict[str, ExportedFile]],
        compared: AccuracyReport | OutputsReport | None,
    ) -> dict[str, Any]:
        job = self._job
        audit = exported["sparse"]["fp32"].audit
        parity = {
            arm_name(name, precision): file.parity.to_json()
            for name, files in exported.items()
            for precision, file in files.items()
        }
        runtime = {"runtime": f"ONNX Runtime {onnxruntime.__version__}, CPU"}
        settings = {**asdict(pruned.settings), **asdict(job.workflow)}
        settings |= {"pattern": str(job.settings.pattern), "seed": job.seed}
        settings |= {"memory_limit": job.memory_limit, "tf32": job.tf32, "processes": world_size()}
        return {
            "tool": {"name": "sparsegpt-trt", "version": __version__},
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": job.command,
            "model": job.model.to_json(),
            "data": {
                "spec": job.data.spec,
                "samples": job.calibration_samples,
                "mean": list(job.data.mean),
                "std": list(job.data.std),
            },
            "settings": {**settings, "device": str(job.device)},
            "layers": [layer.to_json() for layer in pruned.result.layers],
            **pruned.to_json(),
            "accuracy": {**runtime, **compared.to_json()} if isinstance(compared, AccuracyReport) else None,
            "outputs": {**runtime, **compared.to_json()} if isinstance(compared, OutputsReport) else None,
            "parity": parity,
            "audit": {"sparse": audit.to_json()} if audit else None,
            "seconds": {stage: round(value, 3) for stage, value in self._seconds.items()},
            "peak_memory_bytes": peak_memory(job.device),
            "spilled_bytes": pruned.result.spilled_bytes,
            "warnings": self._warnings,
            "environment": environment(),
        }


@contextmanager
def _staged(out: Path, unfinished: Path | None) -> Iterator[Path]:
    """Give a folder beside ``out``; move its files into ``out`` when all went well, else remove it.

    Raises:
        InputError: ``out`` is a file, or cannot be written.
    """
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise InputError(f"{out} is not a folder", "Give --out a folder, or a name that is free.")
    folder = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if unfinished:
            folder = unfinished / "files"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        else:
            folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        yield folder
        out.mkdir(exist_ok=True)
        for file in sorted(folder.iterdir()):
            file.replace(out / file.name)
    except OSError as error:
        raise InputError(
            f"cannot write to {out}: {error.strerror or error}", "Give a folder you may write to, with space left."
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _outputs(path: Path) -> Outputs:
    """Return what turns images into all outputs of a file by name."""
    runtime = Runtime(path, path.name)
    return lambda images: dict(zip(runtime.outputs, runtime.run([images]), strict=True))


def _write_manifest(folder: Path, versions: Mapping[str, str | None]) -> None:
    files = {
        path.name: {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.suffix in (".onnx", ".data", ".safetensors", ".json")
    }
    write_json(folder / "manifest.json", {"tool_version": __version__, "versions": versions, "files": files})
