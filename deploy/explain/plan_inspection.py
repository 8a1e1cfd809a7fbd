"""What is known of a plan: from its sidecar, and on a GPU from its engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Optional, Tuple

from deploy.builder import EngineLayer, SparsityLog, count_memory_skips, load_plan, read_sparsity
from deploy.explain.evidence import Evidence
from deploy.machine import connect
from deploy.sessions import Engine
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import sidecar_path

__all__ = ["evidence_of_plan"]


def evidence_of_plan(
    plan: Path,
    has_sparse_kernels: bool,
    times: Optional[Mapping[str, float]] = None,
    inspected: bool = True,
) -> Evidence:
    """Gather what is known of a plan.

    Args:
        plan: With its sidecar beside it.
        has_sparse_kernels: Whether its graph holds a precision with 2:4 kernels.
        times: Milliseconds of its layers, where they were measured.
        inspected: Whether to ask the engine inspector, which takes a GPU.

    Raises:
        InputError: The plan is not the one that its sidecar describes, or the sidecar lacks something.
        ModelError: This TensorRT or this GPU cannot load the plan.
        MissingDependencyError: The backend or PyCUDA is not installed.
    """
    _, record = load_plan(plan)
    try:
        log = record["build_log"]
        return Evidence(
            sparse_flag=bool(record["sparse_flag"]),
            has_sparse_kernels=has_sparse_kernels,
            compute_capability=record["compute_capability"],
            # TensorRT-RTX chooses kernels when it first runs, so its build log tells nothing of them.
            log=read_sparsity(log["sparsity"]) if record["backend"] == "tensorrt" else SparsityLog(),
            memory_skips=count_memory_skips(log["warnings"]),
            layers=_inspect(plan) if inspected else (),
            times=times or {},
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{sidecar_path(plan)} is not complete", "Build the plan again.") from error


def _inspect(plan: Path) -> Tuple[EngineLayer, ...]:
    connect()
    engine = Engine(plan)
    try:
        return engine.layers()
    finally:
        engine.close()
