"""What is known of an engine: from its build and the open engine, or from a plan on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Tuple

from deploy.builder import BuildResult, EngineLayer, SparsityLog, count_memory_skips, load_plan, read_sparsity
from deploy.explain.evidence import Evidence
from deploy.machine import connect
from deploy.measure import LayerTimes
from deploy.sessions import Engine
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import sidecar_path

__all__ = ["evidence_of_build", "evidence_of_plan"]


def evidence_of_build(
    build: BuildResult, engine: Engine, has_sparse_kernels: bool, layers: Optional[LayerTimes] = None
) -> Evidence:
    """Gather what is known of an engine that was just built and is open.

    Args:
        build: The result of its build.
        engine: The open engine.
        has_sparse_kernels: Whether its graph has a precision with 2:4 kernels.
        layers: The times of its layers, where they were measured.

    Example:
        >>> evidence_of_build(build, session.engine, graph.has_sparse_kernels)  # doctest: +SKIP
    """
    return Evidence(
        sparse_flag=build.sparse_flag,
        has_sparse_kernels=has_sparse_kernels,
        compute_capability=build.compute_capability,
        log=_log(build.backend, build.build_log),
        memory_skips=count_memory_skips(build.build_log["warnings"]),
        layers=engine.layers(),
        times=layers.medians_ms if layers else {},
        noise=layers.noise if layers else {},
    )


def evidence_of_plan(
    plan: Path,
    has_sparse_kernels: bool,
    layers: Optional[LayerTimes] = None,
    inspected: bool = True,
) -> Evidence:
    """Gather what is known of a plan on disk.

    Args:
        plan: The plan, with its sidecar next to it.
        has_sparse_kernels: Whether its graph has a precision with 2:4 kernels.
        layers: The times of its layers, where they were measured.
        inspected: Whether to ask the engine inspector, which needs a GPU.

    Raises:
        InputError: The plan does not match its sidecar, or the sidecar is incomplete.
        ModelError: This TensorRT or this GPU cannot load the plan.
        MissingDependencyError: The backend or PyCUDA is not installed.
    """
    _, record = load_plan(plan)
    try:
        return Evidence(
            sparse_flag=bool(record["sparse_flag"]),
            has_sparse_kernels=has_sparse_kernels,
            compute_capability=record["compute_capability"],
            log=_log(record["backend"], record["build_log"]),
            memory_skips=count_memory_skips(record["build_log"]["warnings"]),
            layers=_inspect(plan) if inspected else (),
            times=layers.medians_ms if layers else {},
            noise=layers.noise if layers else {},
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{sidecar_path(plan)} is not complete", "Build the plan again.") from error


def _log(backend: str, build_log: Mapping[str, Any]) -> SparsityLog:
    # TensorRT-RTX chooses kernels at the first run, so its build log says nothing about them.
    return read_sparsity(build_log["sparsity"]) if backend == "tensorrt" else SparsityLog()


def _inspect(plan: Path) -> Tuple[EngineLayer, ...]:
    connect()
    engine = Engine(plan)
    try:
        return engine.layers()
    finally:
        engine.close()
