"""Builds engines from ONNX files. A sidecar next to each plan records how it was built."""

from __future__ import annotations

__all__ = ["RTX_NOTE", "BuildResult", "build_engine", "load_plan", "sidecar_path"]

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Union

from deploy.builder.build_log import count_memory_skips, read_sparsity
from deploy.builder.compiler import Compiled, compile_engine
from deploy.builder.settings import BuildSettings
from deploy.graph import Graph, OnnxFile, TensorSignature, graph_signature, resolve_shapes
from deploy.machine import (
    Backend,
    describe_environment,
    find_backend,
    find_gpu,
    has_sparse_tensor_cores,
    known_compute_capabilities,
)
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import read_verified, sidecar_path, write_bytes, write_json
from sparsegpt_core.progress import Progress, silent

RTX_NOTE = "TensorRT-RTX parses and builds this graph; it does not show whether sparse kernels are used."
_SILENT_NOTE = "The build log does not say whether sparse kernels are used."


@dataclass(frozen=True)
class BuildResult:
    """A plan and how it was built. The sidecar has the same fields."""

    plan: Path
    """The plan's file."""
    backend: str
    """``tensorrt`` or ``tensorrt-rtx``."""
    backend_version: str
    """The backend's version."""
    sparse_flag: bool
    """Whether the builder was allowed sparse kernels."""
    compute_capability: Optional[str]
    """The GPU's, such as ``8.6``; None where it is unknown."""
    eligible_layers: int
    """Layers that the audit of the ONNX file found eligible for sparse kernels."""
    chosen_layers: Optional[int]
    """Layers for which the builder chose sparse kernels; None where its log does not say."""
    note: str
    """A sentence to show with ``chosen_layers``."""
    warnings: list[str]
    """Sentences about settings without effect and about skipped tactics."""
    seconds: float
    """Time to parse and build."""
    bytes: int
    """The plan's size."""
    sha256: str
    """The plan's SHA-256."""
    inputs: list[TensorSignature]
    """The engine's inputs."""
    outputs: list[TensorSignature]
    """The engine's outputs."""
    onnx: Mapping[str, str]
    """``path`` and ``sha256`` of the ONNX file."""
    settings: Mapping[str, Any]
    """The build settings, and the precisions ``tf32``, ``fp16`` and ``int8`` that the builder was allowed."""
    environment: Mapping[str, Any]
    """The machine, as ``describe_environment`` returns it."""
    build_log: Mapping[str, list[str]]
    """Log lines: ``sparsity`` and ``warnings``."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as values for JSON."""
        return {**asdict(self), "plan": str(self.plan)}


def build_engine(
    model: Union[Path, OnnxFile],
    plan_path: Path,
    settings: Optional[BuildSettings] = None,
    progress: Progress = silent,
) -> BuildResult:
    """Build an engine; write the plan and its sidecar.

    Args:
        model: The ONNX file: FP32, FP16, or Q/DQ INT8.
        plan_path: The plan to write; its sidecar is ``sidecar_path(plan_path)``.
        settings: Settings of the build; None for the defaults.
        progress: Receives the stages ``parse`` and ``build``.

    Raises:
        InputError: The file is missing or is not an ONNX model, or a setting does not fit the graph or the backend.
        ModelError: The backend cannot parse or build the graph.
        MissingDependencyError: No backend or no Polygraphy is installed.

    Example:
        >>> result = build_engine(Path("sparse.onnx"), Path("sparse.plan"))  # doctest: +SKIP
        >>> result.eligible_layers, result.chosen_layers  # doctest: +SKIP
        (20, 13)
    """
    file, settings = OnnxFile.of(model), settings or BuildSettings()
    if os.path.realpath(plan_path) == os.path.realpath(file.path):
        raise InputError(f"the plan would overwrite its own model {file.path}", "Give another path for the plan.")
    graph = file.graph
    profile = resolve_shapes(graph.inputs, settings.shapes)
    eligible = file.audit.eligible_layers
    backend = find_backend(settings.backend)
    capability = _compute_capability(backend, settings.compute_capability)
    compiled = compile_engine(
        backend, file.path, graph, profile, settings, capability if backend.is_rtx else None, progress
    )
    inputs, outputs = graph_signature(graph, profile)
    chosen = None if backend.is_rtx else read_sparsity(compiled.sparsity).chosen
    result = BuildResult(
        plan=plan_path,
        backend=backend.name,
        backend_version=backend.version,
        sparse_flag=settings.sparse,
        compute_capability=capability,
        eligible_layers=eligible,
        chosen_layers=chosen,
        note=_note(backend, chosen),
        warnings=_warnings(backend, settings, capability, graph, eligible, compiled),
        seconds=round(compiled.seconds, 3),
        bytes=len(compiled.plan),
        sha256=hashlib.sha256(compiled.plan).hexdigest(),
        inputs=inputs,
        outputs=outputs,
        onnx={"path": str(file.path), "sha256": file.sha256},
        settings={
            **asdict(settings),
            "timing_cache": _text(settings.timing_cache),
            "shapes": profile,
            **compiled.precisions,
        },
        environment=describe_environment(),
        build_log={"sparsity": compiled.sparsity, "warnings": compiled.warnings},
    )
    write_bytes(plan_path, compiled.plan)
    write_json(sidecar_path(plan_path), result.to_json())
    return result


def load_plan(path: Path) -> Tuple[bytes, Dict[str, Any]]:
    """Read a plan and its sidecar. The SHA-256 must match, since deserialising a plan can run code.

    Raises:
        InputError: The plan or the sidecar is missing or unreadable, or the SHA-256 does not match.

    Example:
        >>> plan, record = load_plan(Path("sparse.plan"))  # doctest: +SKIP
        >>> record["backend"]  # doctest: +SKIP
        'tensorrt'
    """
    return read_verified(path, "plan", "Build it here with `sparsegpt-trt build`.")


def _compute_capability(backend: Backend, wanted: Optional[str]) -> Optional[str]:
    gpu = find_gpu()
    if not backend.is_rtx:
        if wanted:
            raise InputError("tensorrt builds for this machine's GPU", "Leave out `compute_capability`.")
        return gpu.compute_capability if gpu else None
    capability = wanted or (gpu.compute_capability if gpu else "8.6")
    known = known_compute_capabilities(backend)
    if capability not in known:
        raise InputError(
            f"TensorRT-RTX {backend.version} does not build for compute capability {capability}",
            f"Set `compute_capability` to one of {', '.join(known)}.",
        )
    return capability


def _note(backend: Backend, chosen: Optional[int]) -> str:
    if backend.is_rtx:
        return RTX_NOTE
    return _SILENT_NOTE if chosen is None else f"The builder chose sparse kernels for {chosen} layers."


def _warnings(
    backend: Backend,
    settings: BuildSettings,
    capability: Optional[str],
    graph: Graph,
    eligible: int,
    compiled: Compiled,
) -> list[str]:
    skipped = count_memory_skips(compiled.warnings)
    found = {
        f"A GPU of compute capability {capability} has no sparse tensor cores; they need 8.0 (Ampere) or newer.": (
            settings.sparse and capability is not None and not has_sparse_tensor_cores(capability)
        ),
        "The graph is FP32, which has no sparse kernels: export it as FP16 or INT8.": settings.sparse
        and not graph.has_sparse_kernels,
        "No layer is both 2:4 and eligible, so the sparse flag has no effect.": settings.sparse and not eligible,
        "TensorRT-RTX keeps no timing cache, so `timing_cache` has no effect.": backend.is_rtx
        and settings.timing_cache is not None,
        f"The builder skipped {skipped} tactics for lack of memory; they may have been faster.": skipped > 0,
    }
    return [text for text, holds in found.items() if holds]


def _text(path: Optional[Path]) -> Optional[str]:
    return None if path is None else str(path)
