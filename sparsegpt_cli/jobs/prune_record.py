"""The content of ``prune.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import onnxruntime

from deploy.machine import describe_environment
from export.exporter import arm_name
from sparsegpt_cli.jobs.job import Job
from sparsegpt_cli.messages import with_flags
from sparsegpt_core import __version__
from sparsegpt_core.execution import peak_memory
from sparsegpt_core.torchrun import world_size

__all__ = ["StageOutcome", "describe_run"]

_ARMS = ("dense", "magnitude", "sparse")


@dataclass(frozen=True)
class StageOutcome:
    """The outcome of one stage, as JSON can hold it."""

    content: dict[str, Any]
    """The results: ``files`` by precision and more."""
    seconds: dict[str, float]
    """Wall-clock time by step."""
    warnings: list[str]
    """What the user should know; settings are named in backticks."""


def describe_run(job: Job, stages: Mapping[str, StageOutcome], total_seconds: float) -> dict[str, Any]:
    """Return the content of ``prune.json``.

    Args:
        job: The model, its data and the settings.
        stages: ``dense``, ``sparse``, ``compare`` and, with a baseline, ``magnitude``.
        total_seconds: Wall-clock time of the whole run; less than the sum where finished stages were found.
    """
    sparse = stages["sparse"].content
    files = {
        arm_name(arm, precision): file
        for arm in _ARMS
        if arm in stages
        for precision, file in stages[arm].content["files"].items()
    }
    runtime = {"runtime": f"ONNX Runtime {onnxruntime.__version__}, CPU"}
    compared = stages["compare"].content
    audit = sparse["files"]["fp32"]["audit"]
    done = dict(sparse["done"])
    if done.get("target") and compared.get("accuracy"):
        measured = {key: compared["accuracy"]["sparse"][key] for key in ("disagreement", "samples")}
        done["target"] = {**done["target"], "evaluation": measured}
    seconds: dict[str, float] = {}
    for outcome in stages.values():
        for step, value in outcome.seconds.items():
            seconds[step] = seconds.get(step, 0.0) + value
    return {
        "tool": {"name": "sparsegpt-trt", "version": __version__},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": job.command,
        "model": job.model.to_json(),
        "data": {
            "spec": job.data.spec,
            "evaluation": job.data.evaluation_spec,
            "samples": job.calibration_samples,
            **{key: value for key, value in job.data.metadata().items() if key != "image"},
        },
        "settings": {
            **sparse["settings"],
            **asdict(job.workflow),
            "seed": job.seed,
            "memory_limit": job.memory_limit,
            "tf32": job.tf32,
            "processes": world_size(),
            "device": str(job.device),
        },
        "layers": sparse["layers"],
        **done,
        "accuracy": {**runtime, **compared["accuracy"]} if compared.get("accuracy") else None,
        "outputs": {**runtime, **compared["outputs"]} if compared.get("outputs") else None,
        "metrics": compared.get("metrics"),
        "parity": {name: file["parity"] for name, file in files.items()},
        "audit": {"sparse": audit} if audit else None,
        "seconds": {step: round(value, 3) for step, value in {**seconds, "total": total_seconds}.items()},
        "peak_memory_bytes": peak_memory(job.device),
        "spilled_bytes": sparse["spilled_bytes"],
        "warnings": [
            with_flags(warning)
            for warning in (*job.warnings, *(each for outcome in stages.values() for each in outcome.warnings))
        ],
        "notes": [note for file in files.values() for note in file["notes"]],
        "environment": describe_environment(),
    }
