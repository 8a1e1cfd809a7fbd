"""The main job: a trained network in; dense and sparse ONNX, their audit, comparison and report out."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from calibration.sampling import calibration_batches
from deploy.machine import describe_environment
from deploy.measure import Outputs, compare_accuracy, compare_outputs, gives_logits
from deploy.sessions import OnnxSession
from export.execution import CpuSession
from export.exporter import Exporter, arm_name
from sparsegpt_cli.jobs.datasets import EvaluationBatches
from sparsegpt_cli.jobs.int8_graphs import Int8Quantiser
from sparsegpt_cli.jobs.job import Job, model_metadata, pruning_identity, pruning_metadata
from sparsegpt_cli.jobs.pruning import prune
from sparsegpt_cli.messages import with_flags
from sparsegpt_cli.report import render_report
from sparsegpt_cli.resume import LAYERS, STAGES, StageStore, staged, write_manifest
from sparsegpt_core import __version__
from sparsegpt_core.checkpoints import save_checkpoint, save_int8
from sparsegpt_core.execution import peak_memory
from sparsegpt_core.files import write_json
from sparsegpt_core.network import Int8Weight, plan_layers
from sparsegpt_core.progress import Progress, silent, timed
from sparsegpt_core.pruning import prune_model, run_key
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.torchrun import world_size

__all__ = ["prune_export"]

Say = Callable[[str], None]

_PARITY_SAMPLES = 32


def prune_export(
    job: Job, out: Path, progress: Progress = silent, unfinished: Path | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Prune, export, audit, compare and report.

    Args:
        job: What to do.
        out: The folder for ``dense.onnx``, ``sparse.onnx``, both as ``.fp16.onnx``, ``sparse.safetensors``,
            ``prune.json``, ``manifest.json`` and ``report.html``; with INT8 both as ``.int8.onnx`` and
            ``sparse.int8.safetensors``, with a baseline ``magnitude.onnx`` too.
            Nothing is put there before all of it is done.
        progress: Told of every stage.
        unfinished: A folder beside ``out`` for what is under way, where layers and stages are found again after a kill;
            None makes a temporary one.
        say: Told which stages of an unfinished run cannot be used.

    Returns:
        What ``prune-export --json`` prints.

    Raises:
        SparseGPTError: Any stage failed; ``out`` is as it was.
    """
    with staged(out, unfinished) as folder:
        content = _Run(job, folder, progress, unfinished, say).run()
        write_json(folder / "prune.json", content)
        write_manifest(folder, content["environment"]["versions"])
        render_report(folder)
    files = {"dense": "dense.onnx", "sparse": "sparse.onnx", "checkpoint": "sparse.safetensors"}
    files |= {"report": "report.html", "manifest": "manifest.json"}
    paths = {name: str(out / file) for name, file in files.items()}
    shown = ("layers", "accuracy", "outputs", "parity", "seconds", "peak_memory_bytes", "spilled_bytes", "warnings")
    return {"out": str(out), "files": paths, **{key: content[key] for key in shown}}


class _Run:
    """One run's stages, its clock and its warnings."""

    def __init__(self, job: Job, folder: Path, progress: Progress, unfinished: Path | None, say: Say) -> None:
        self._job, self._folder, self._progress, self._unfinished = job, folder, progress, unfinished
        self._metadata = model_metadata(job.model, job.data)
        self._images = calibration_batches(job.data.training, self._parity_samples(), _PARITY_SAMPLES, job.seed)[0]
        self._stages = StageStore(folder, unfinished and unfinished / STAGES, self._keys())
        if self._stages.unusable:
            say(f"stages that run again: {', '.join(self._stages.unusable)}")
        self._seconds: dict[str, float] = {}
        self._warnings: list[str] = []

    def run(self) -> dict[str, Any]:
        job, start = self._job, time.perf_counter()
        plan_layers(job.model.module, self._images[:2], job.settings)  # a misfit shows before the first long stage
        exported = {"dense": self._stage("dense", self._dense)}
        if "magnitude" in self._stages:
            exported["magnitude"] = self._stage("magnitude", self._magnitude)
        pruned = self._stage("sparse", self._sparse)
        exported["sparse"] = pruned.pop("files")
        compared = self._stage("compare", self._compare)
        self._seconds["total"] = time.perf_counter() - start
        return self._content(pruned, exported, compared)

    def _keys(self) -> dict[str, str]:
        """By stage what its outcome depends on."""
        job, split = self._job, self._job.data.evaluation
        data = {"data": job.data.spec, "seed": job.seed}
        dense = {**self._metadata, **data, **asdict(job.export), "int8": job.int8 and job.calibration_samples}
        magnitude = {**dense, "pattern": job.settings.pattern, "in": job.settings.include, "out": job.settings.exclude}
        sparse = {**dense, **pruning_identity(job)}
        seen = [self._images]
        keys = {"dense": run_key(job.model.module, seen, dense)}
        if job.baseline and job.settings.method != "magnitude":
            keys["magnitude"] = run_key(job.model.module, seen, magnitude)
        calibrated = [*calibration_batches(job.data.training, job.calibration_samples, _PARITY_SAMPLES, job.seed)]
        keys["sparse"] = run_key(job.model.module, calibrated, sparse)
        judged = {"eval_samples": job.eval_samples, "batch_size": job.batch_size, "arms": list(keys)}
        if split is not None:
            calibrated.append(torch.from_numpy(next(iter(EvaluationBatches(split, 1, 1, job.seed)))[0]))
        return {**keys, "compare": run_key(job.model.module, calibrated, {**sparse, **judged})}

    def _stage(self, name: str, make: Callable[[dict[str, float], list[str]], dict[str, Any] | None]) -> Any:
        """Return what a stage gives, having run it unless it is finished; it notes its times and its warnings."""

        def run() -> dict[str, Any]:
            seconds, warnings = dict[str, float](), list[str]()
            content = make(seconds, warnings)
            return {"content": content, "seconds": seconds, "warnings": warnings}

        told = self._stages.once(name, run)
        for part, value in told["seconds"].items():
            self._seconds[part] = self._seconds.get(part, 0.0) + value
        self._warnings += told["warnings"]
        return told["content"]

    def _parity_samples(self) -> int:
        return min(_PARITY_SAMPLES, len(self._job.data.training))

    def _dense(self, seconds: dict[str, float], warnings: list[str]) -> dict[str, Any]:
        return self._export("dense", self._metadata, (), seconds, warnings)

    def _magnitude(self, seconds: dict[str, float], warnings: list[str]) -> dict[str, Any]:
        """Prune a throw-away copy by magnitude and export it."""
        job = self._job
        settings = PruneSettings(
            job.settings.pattern, "magnitude", include=job.settings.include, exclude=job.settings.exclude
        )
        dense = job.model.module
        state = copy.deepcopy(dense.state_dict())
        try:
            result = prune_model(dense, [self._images], settings)
            metadata = pruning_metadata(replace(job, settings=settings), result)
            return self._export("magnitude", metadata, metadata["pruned"], seconds, warnings)
        finally:
            dense.load_state_dict(state)

    def _sparse(self, seconds: dict[str, float], warnings: list[str]) -> dict[str, Any]:
        job = self._job
        pruned = prune(job, self._progress, self._folder, self._unfinished and self._unfinished / LAYERS)
        seconds.update(pruned.seconds)
        warnings += pruned.warnings
        metadata, integers = pruning_metadata(job, pruned.result), pruned.result.int8_weights
        files = self._export("sparse", metadata, metadata["pruned"], seconds, warnings, integers)
        checkpoint = self._folder / "sparse.safetensors"
        save_checkpoint(checkpoint, job.model.module.state_dict(), metadata)
        if job.int8:
            save_int8(checkpoint, integers)
        return {
            "files": files,
            "settings": {
                **asdict(job.settings),
                **asdict(pruned.choices),
                "hold_out": job.workflow.selects,
                "integers": job.int8,
                "pattern": str(job.settings.pattern),
            },
            "layers": [layer.to_json() for layer in pruned.result.layers],
            "done": pruned.to_json(),
            "spilled_bytes": pruned.result.spilled_bytes,
        }

    def _export(
        self,
        name: str,
        metadata: dict[str, Any],
        pruned: Sequence[str],
        seconds: dict[str, float],
        warnings: list[str],
        integers: Mapping[str, Int8Weight] | None = None,
    ) -> dict[str, Any]:
        """Write ``name.onnx`` and, unless it is only the baseline, the other precisions; return what they prove."""
        job = self._job
        precisions = ["fp32"] if name == "magnitude" else ["fp32", "fp16"]
        quantisation = None
        if job.int8 and name != "magnitude":
            precisions.append("int8")
            batches = calibration_batches(job.data.training, job.calibration_samples, _PARITY_SAMPLES, job.seed)
            quantisation = Int8Quantiser(batches, integers or {})
        self._progress(f"export {name}", 0, len(precisions))
        with timed(seconds, "export"):
            exporter = Exporter(
                job.model.module,
                self._images,
                metadata,
                job.settings.pattern,
                pruned,
                job.export,
                quantisation,
                self._progress,
            )
            files: dict[str, Any] = {}
            for precision in precisions:
                file = exporter.write(self._folder / f"{arm_name(name, precision)}.onnx", precision)
                warnings += file.warnings
                audit = file.audit.to_json() if file.audit else None
                files[precision] = {"audit": audit, "parity": file.parity.to_json()}
                self._progress(f"export {name}", len(files), len(precisions))
        return files

    def _compare(self, seconds: dict[str, float], warnings: list[str]) -> dict[str, Any] | None:
        """Compare the files on the evaluation split, in ONNX Runtime, whose CPU kernels compute FP16 in FP32.

        Returns:
            ``accuracy`` or ``outputs``; None without an evaluation split.
        """
        job, split = self._job, self._job.data.evaluation
        if split is None:
            warnings.append(f"accuracy is left out: {job.data.spec} has no evaluation split; --eval-data names one")
            return None
        batches = EvaluationBatches(split, job.eval_samples, job.batch_size, job.seed)
        arms = ["dense", "magnitude", "sparse"] if "magnitude" in self._stages else ["dense", "sparse"]
        names = [arm_name(arm, precision) for arm in arms for precision in ("fp32", "int8")]
        paths = {name: path for name in names if (path := self._folder / f"{name}.onnx").exists()}
        with timed(seconds, "evaluate"):
            if gives_logits(paths["dense"]):
                sessions = {name: OnnxSession(path).run for name, path in paths.items()}
                accuracy = compare_accuracy(sessions, batches, progress=self._progress, total=len(batches))
                return {"accuracy": accuracy.to_json()}
            warnings.append("accuracy is left out: the outputs are no logits; their relative errors are compared")
            runs = {name: _outputs(path) for name, path in paths.items()}
            outputs = compare_outputs(runs, batches, progress=self._progress, total=len(batches))
            return {"outputs": outputs.to_json()}

    def _content(
        self, pruned: dict[str, Any], exported: dict[str, dict[str, Any]], compared: dict[str, Any] | None
    ) -> dict[str, Any]:
        job = self._job
        audit = exported["sparse"]["fp32"]["audit"]
        parity = {
            arm_name(name, precision): file["parity"]
            for name, files in exported.items()
            for precision, file in files.items()
        }
        runtime = {"runtime": f"ONNX Runtime {onnxruntime.__version__}, CPU"}
        comparisons = {
            name: {**runtime, **compared[name]} if compared and name in compared else None
            for name in ("accuracy", "outputs")
        }
        settings = {**pruned["settings"], **asdict(job.workflow), "seed": job.seed}
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
            "layers": pruned["layers"],
            **pruned["done"],
            **comparisons,
            "parity": parity,
            "audit": {"sparse": audit} if audit else None,
            "seconds": {stage: round(value, 3) for stage, value in self._seconds.items()},
            "peak_memory_bytes": peak_memory(job.device),
            "spilled_bytes": pruned["spilled_bytes"],
            "warnings": [with_flags(warning) for warning in self._warnings],
            "environment": describe_environment(),
        }


def _outputs(path: Path) -> Outputs:
    """Return what turns images into all outputs of a file by name."""
    runtime = CpuSession(path, path.name)
    return lambda images: dict(zip(runtime.outputs, runtime.run([images]), strict=True))
