"""The main job: it prunes a trained network and writes dense and sparse ONNX, their audit, comparison and report."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from calibration.sampling import calibration_batches
from deploy.measure import ArmAccuracy, compare_versions
from deploy.roofline import find_spec
from deploy.sessions import OnnxSession
from export.exporter import Exporter, arm_name, trace
from export.importing import OnnxNetwork
from export.writing import TracedNetwork, is_large
from sparsegpt_cli.jobs.datasets import EvaluationBatches, fingerprint
from sparsegpt_cli.jobs.gains import Target, predict_for
from sparsegpt_cli.jobs.int8_graphs import Int8Quantiser
from sparsegpt_cli.jobs.job import (
    Job,
    code_identity,
    model_metadata,
    pruning_identity,
    pruning_metadata,
    shipped_metadata,
)
from sparsegpt_cli.jobs.prune_record import StageOutcome, describe_run
from sparsegpt_cli.jobs.pruning import prune
from sparsegpt_cli.report import render_report
from sparsegpt_cli.resume import LAYERS, STAGES, StageStore, staged, write_manifest
from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint, save_int8
from sparsegpt_core.files import write_json
from sparsegpt_core.network import Int8Weight, from_arrays
from sparsegpt_core.progress import Progress, Say, silent, timed
from sparsegpt_core.pruning import LayerChoices, prune_model, run_key
from sparsegpt_core.reasons import Reason
from sparsegpt_core.settings import PruneSettings

__all__ = ["RUN_FILES", "prune_export"]

RUN_FILES = (
    *(f"{arm}.{kind}" for arm in ("dense", "sparse") for kind in ("onnx", "fp16.onnx", "int8.onnx")),
    *("magnitude.onnx", "sparse.safetensors", "sparse.int8.safetensors"),
    *("prune.json", "manifest.json", "report.html"),
)
"""The names of all files that the job may write."""

_PARITY_IMAGES = 32


def prune_export(
    job: Job, out: Path, progress: Progress = silent, unfinished: Path | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Prune, export, audit, compare and report.

    Args:
        job: The model, its data and the settings, as :func:`~sparsegpt_cli.jobs.job.check_job` returns them.
        out: The folder for ``dense.onnx``, ``sparse.onnx``, both as ``.fp16.onnx``, ``sparse.safetensors``,
            ``prune.json``, ``manifest.json`` and ``report.html``; with INT8 both as ``.int8.onnx`` and
            ``sparse.int8.safetensors``, with a baseline ``magnitude.onnx`` too.
            The files are moved there once all stages are finished.
        progress: Called for every stage.
        unfinished: A folder next to ``out`` for unfinished work, where layers and stages are found again after a kill;
            None makes a temporary one.
        say: Called with the stages of an unfinished run that cannot be used.

    Returns:
        What ``prune-export --json`` prints.

    Raises:
        SparseGPTError: A stage failed; ``out`` is as it was.
    """
    with staged(out, unfinished) as folder:
        images = calibration_batches(job.data.training, _parity_images(job), _PARITY_IMAGES, job.seed)[0]
        content = _run_stages(_Run(job, folder, unfinished, images, progress), say)
        write_json(folder / "prune.json", content)
        write_manifest(folder, content["environment"]["versions"])
        render_report(folder)
    files = {"dense": "dense.onnx", "sparse": "sparse.onnx", "checkpoint": "sparse.safetensors"}
    files |= {"report": "report.html", "manifest": "manifest.json"}
    paths = {name: str(out / file) for name, file in files.items()}
    shown = (
        "layers",
        "accuracy",
        "outputs",
        "metrics",
        "parity",
        "seconds",
        "peak_memory_bytes",
        "spilled_bytes",
        "warnings",
    )
    return {"out": str(out), "files": paths, **{key: content[key] for key in shown}}


@dataclass(frozen=True)
class _Run:
    """What every stage takes."""

    job: Job
    folder: Path
    """Where the stages write their files."""
    unfinished: Path | None
    """Where finished layers and stages are kept."""
    images: Tensor
    """Calibration images (N, C, H, W) for the comparison of files with PyTorch."""
    progress: Progress

    @cached_property
    def traced(self) -> TracedNetwork | None:
        """The network's graph for the files of all weights; None for a network from an ONNX file."""
        network = self.job.model.module
        return None if isinstance(network, OnnxNetwork) else trace(network, self.images, self.job.export)


def _run_stages(run: _Run, say: Say) -> dict[str, Any]:
    """Run the stages that are not finished; return the content of ``prune.json``."""
    start, job = time.perf_counter(), run.job
    store = StageStore(run.folder, run.unfinished and run.unfinished / STAGES, _stage_keys(job, run.images))
    if store.unusable:
        say(f"stages that run again: {', '.join(store.unusable)}")

    def stage(name: str, make: Callable[[], StageOutcome]) -> StageOutcome:
        return StageOutcome(**store.once(name, lambda: vars(make())))

    with tempfile.TemporaryDirectory(dir=run.folder) as kept:
        has_baseline, dense = "magnitude" in store, Path(kept, "dense.safetensors")
        if has_baseline:
            save_checkpoint(dense, job.model.module.state_dict(), {})
        outcomes = {"dense": stage("dense", lambda: _dense(run))}
        outcomes["sparse"] = stage("sparse", lambda: _sparse(run, say))
        if has_baseline:
            settings = outcomes["sparse"].content["settings"]
            left_dense = {name: Reason(code) for name, code in settings["left_dense"].items()}
            choices = LayerChoices(settings["quotas"], left_dense)
            outcomes["magnitude"] = stage("magnitude", lambda: _magnitude(run, dense, choices))
    arms = [arm for arm in ("dense", "magnitude", "sparse") if arm in outcomes]
    outcomes["compare"] = stage("compare", lambda: _compare(run, arms))
    content = describe_run(job, outcomes, time.perf_counter() - start)
    return {**content, "prediction": _predict(run, content["gains"])}


def _stage_keys(job: Job, images: Tensor) -> dict[str, str]:
    """By stage a digest of everything that its outcome depends on."""
    split = job.data.evaluation
    dense = {
        "weights": run_key(job.model.module, [], {}),
        **model_metadata(job.model, job.data),
        **code_identity(job.model.spec),
        "seed": job.seed,
        **asdict(job.export),
        "int8": job.int8 and job.calibration_samples,
    }
    sparse = {**dense, **pruning_identity(job)}
    calibrated = [*calibration_batches(job.data.training, job.calibration_samples, _PARITY_IMAGES, job.seed)]
    keys = {"dense": _key([images], dense), "sparse": _key(calibrated, sparse)}
    if job.baseline and job.settings.method != "magnitude":
        magnitude = {**dense, "pattern": job.settings.pattern, "in": job.settings.include, "out": job.settings.exclude}
        chooses = job.target or job.workflow.selects or job.workflow.global_budget
        if chooses:  # the sparse stage chooses the layers and quotas
            magnitude["choices"] = keys["sparse"]
        keys["magnitude"] = _key([images], magnitude)
    compare = {
        **sparse,
        "data_sha256": fingerprint(job.data),
        "eval_samples": job.eval_samples,
        "batch_size": job.batch_size,
        "arms": list(keys),
    }
    if job.metric:
        compare |= {"metric": job.metric.name, **code_identity(job.metric.name)}
    if split is not None:
        calibrated.append(from_arrays(next(iter(EvaluationBatches(split, 1, 1, job.seed)))[0]))
    return {**keys, "compare": _key(calibrated, compare)}


def _key(batches: Sequence[Tensor], about: Mapping[str, Any]) -> str:
    return run_key(nn.Identity(), batches, about)


def _predict(run: _Run, gains: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the estimated speed-up, with the layers that were pruned if those that pay were chosen."""
    job = run.job
    target = job.target or Target(find_spec().name, "int8" if job.int8 else "fp16")
    predicted = predict_for(target, run.folder / "sparse.onnx", run.images).to_json()
    if gains:
        predicted |= {"bound": gains["speedup"]["pruned"], "verdict": gains["verdict"]}
    return {key: predicted[key] for key in ("gpu", "precision", "bound", "ceiling", "eligible_share", "verdict")}


def _parity_images(job: Job) -> int:
    return min(_PARITY_IMAGES, len(job.data.training))


def _dense(run: _Run) -> StageOutcome:
    return _export(run, "dense", model_metadata(run.job.model, run.job.data))


def _sparse(run: _Run, say: Say) -> StageOutcome:
    """Prune the model and export it."""
    job = run.job
    finished = run.unfinished and run.unfinished / LAYERS
    pruned = prune(job, run.progress, run.folder, finished, run.folder / "dense.onnx", say)
    metadata, int8_weights = pruning_metadata(job, pruned.result), pruned.result.int8_weights
    exported = _export(run, "sparse", metadata, int8_weights)
    checkpoint = run.folder / "sparse.safetensors"
    save_checkpoint(checkpoint, job.model.module.state_dict(), metadata)
    if job.int8:
        save_int8(checkpoint, int8_weights)
    content = {
        **exported.content,
        "settings": {
            **asdict(job.settings),
            "variance": pruned.result.keeps_variance,
            **asdict(pruned.choices),
            "hold_out": pruned.tradeoff is not None,
            "integers": job.int8,
            "pattern": str(job.settings.pattern),
        },
        "layers": [layer.to_json() for layer in pruned.result.layers],
        "done": pruned.to_json(),
        "spilled_bytes": pruned.result.spilled_bytes,
    }
    return StageOutcome(content, pruned.seconds | exported.seconds, [*pruned.warnings, *exported.warnings])


def _magnitude(run: _Run, dense: Path, choices: LayerChoices) -> StageOutcome:
    """Prune the dense network by magnitude: the layers that the sparse stage pruned, with its quotas; and export it.

    Its weights are read from a file, since the memory may not hold them beside the sparse ones.
    """
    job, model = run.job, run.job.model.module
    settings = PruneSettings(
        job.settings.pattern, "magnitude", include=job.settings.include, exclude=job.settings.exclude
    )
    model.cpu()  # as in a resumed run, where nothing has moved the model
    model.load_state_dict(load_checkpoint(dense).state)
    result = prune_model(model, [run.images], settings, choices=choices)
    return _export(run, "magnitude", pruning_metadata(replace(job, settings=settings), result))


def _export(
    run: _Run, name: str, metadata: dict[str, Any], int8_weights: Mapping[str, Int8Weight] | None = None
) -> StageOutcome:
    """Write ``name.onnx`` and, unless it is the magnitude baseline, the other precisions."""
    job, warnings = run.job, list[str]()
    precisions, quantise = ["fp32"], None
    if name != "magnitude":
        precisions.append("fp16")
        if job.int8:
            precisions.append("int8")
            batches = calibration_batches(job.data.training, job.calibration_samples, _PARITY_IMAGES, job.seed)
            quantise = Int8Quantiser(batches, int8_weights or {})
    run.progress(f"export {name}", 0, len(precisions))
    seconds, files = dict[str, float](), dict[str, Any]()
    with timed(seconds, "export"):
        exporter = Exporter(
            job.model.module,
            run.images,
            shipped_metadata(metadata),
            job.settings.pattern,
            metadata.get("pruned", ()),
            job.export,
            quantise,
            run.progress,
            run.traced,
        )
        for precision in precisions:
            file = exporter.write(run.folder / f"{arm_name(name, precision)}.onnx", precision)
            warnings += file.warnings
            audit = file.audit.to_json() if file.audit else None
            files[precision] = {"audit": audit, "parity": file.parity.to_json(), "notes": list(file.notes)}
            run.progress(f"export {name}", len(files), len(precisions))
    return StageOutcome({"files": files}, seconds, warnings)


def _compare(run: _Run, arms: Sequence[str]) -> StageOutcome:
    """Compare the files on the evaluation split, in ONNX Runtime, whose CPU kernels compute FP16 in FP32.

    Returns:
        ``accuracy`` or ``outputs``, and ``metrics``; nothing without an evaluation split.
    """
    job, split = run.job, run.job.data.evaluation
    if split is None:
        missing = f"accuracy is left out: {job.data.spec} has no evaluation split; --eval-data names one"
        return StageOutcome({}, {}, [missing])
    batches = EvaluationBatches(split, job.eval_samples, job.batch_size, job.seed)
    precisions = ("fp32", "fp16", "int8") if job.metric else ("fp32", "int8")
    names = [arm_name(arm, precision) for arm in arms for precision in precisions]
    paths = {name: path for name in names if (path := run.folder / f"{name}.onnx").exists()}
    seconds, warnings = dict[str, float](), list[str]()
    with timed(seconds, "evaluate"):
        sessions = {name: OnnxSession(path, pack=not is_large(path)).outputs for name, path in paths.items()}
        compared = compare_versions(
            sessions, batches, job.metric, seed=job.seed, progress=run.progress, total=len(batches)
        )
    warnings += compared.warnings
    if compared.accuracy:
        warnings += _missed_target(job, compared.accuracy.arms["sparse"])
    if compared.outputs:
        warnings.append("accuracy is left out: the outputs are not logits; their relative errors are compared")
    return StageOutcome(compared.to_json(), seconds, warnings)


def _missed_target(job: Job, sparse: ArmAccuracy) -> list[str]:
    """Return a warning if more evaluation images change class than the job allows."""
    limit, measured = job.workflow.max_disagreement, sparse.disagreement or 0.0
    if limit is None or measured <= limit:
        return []
    return [
        f"the target `max_disagreement={limit:g}%` is missed: {measured:.2f} % of {sparse.samples} evaluation images "
        "change class. Images that the network was trained on, which judge the target, change less. Give a lower target"
    ]
