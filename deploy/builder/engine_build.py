"""Engines from ONNX: the plan, and beside it a JSON file that says how it came to be."""

from __future__ import annotations

__all__ = ["RTX_NOTE", "BuildResult", "build_engine", "load_plan", "sidecar_path"]

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Union

from deploy.builder.build_log import count_memory_skips, read_sparsity
from deploy.builder.compiler import Compiled, compile_engine, known_compute_capabilities
from deploy.builder.settings import BuildSettings
from deploy.graph import Graph, OnnxFile, TensorSignature, graph_signature, resolve_shapes
from deploy.machine import Backend, describe_environment, find_backend, find_gpu
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import read_verified, sidecar_path, write_bytes, write_json
from sparsegpt_core.progress import Progress, silent

RTX_NOTE = "TensorRT-RTX parses and builds this graph; it does not show whether sparse kernels are used."
_SILENT_NOTE = "The build log does not say whether sparse kernels are used."


@dataclass(frozen=True)
class BuildResult:
    """A plan and how it came to be; also what its sidecar holds.

    ``eligible_layers`` is counted in the file by our auditor; ``chosen_layers`` is what the builder said, None
    where it did not; ``note`` has to be shown to whoever reads those two. ``seconds`` is parsing and building;
    ``inputs`` and ``outputs`` say what the plan itself tells only to its own TensorRT.
    """

    plan: Path
    backend: str
    backend_version: str
    sparse_flag: bool
    compute_capability: Optional[str]
    eligible_layers: int
    chosen_layers: Optional[int]
    note: str
    warnings: list[str]
    seconds: float
    bytes: int
    sha256: str
    inputs: list[TensorSignature]
    outputs: list[TensorSignature]
    onnx: Mapping[str, str]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    build_log: Mapping[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {**asdict(self), "plan": str(self.plan)}


def build_engine(
    model: Union[Path, OnnxFile],
    plan_path: Path,
    settings: Optional[BuildSettings] = None,
    progress: Progress = silent,
) -> BuildResult:
    """Build an engine and write it, with its sidecar beside it.

    Args:
        model: The ONNX file: FP32, FP16, or Q/DQ INT8.
        plan_path: Where the plan goes; the sidecar is ``sidecar_path(plan_path)``.
        settings: Flags of the build; None for the defaults.
        progress: Told of the stages ``parse`` and ``build``.

    Raises:
        InputError: The file is missing or no ONNX model, or a setting does not fit the graph or the backend.
        ModelError: The backend cannot parse or build the graph.
        MissingDependencyError: No backend, or no Polygraphy.
    """
    file, settings = OnnxFile.of(model), settings or BuildSettings()
    if os.path.realpath(plan_path) == os.path.realpath(file.path):
        raise InputError(f"the plan would overwrite its own model {file.path}", "Give the plan another path.")
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
        warnings=_warnings(backend, settings, graph, eligible, compiled),
        seconds=round(compiled.seconds, 3),
        bytes=len(compiled.plan),
        sha256=hashlib.sha256(compiled.plan).hexdigest(),
        inputs=inputs,
        outputs=outputs,
        onnx={"path": str(file.path), "sha256": file.sha256},
        settings={**asdict(settings), "timing_cache": _text(settings.timing_cache), "shapes": profile},
        environment=describe_environment(),
        build_log={"sparsity": compiled.sparsity, "warnings": compiled.warnings},
    )
    write_bytes(plan_path, compiled.plan)
    write_json(sidecar_path(plan_path), result.to_json())
    return result


def load_plan(path: Path) -> Tuple[bytes, Dict[str, Any]]:
    """Read a plan and its sidecar, if they belong together: deserialising a plan runs code.

    Raises:
        InputError: Plan or sidecar is missing or unreadable, or the SHA-256 is not the recorded one.
    """
    return read_verified(path, "plan", "Build it here: sparsegpt-trt build.")


def _compute_capability(backend: Backend, wanted: Optional[str]) -> Optional[str]:
    gpu = find_gpu()
    if not backend.is_rtx:
        if wanted:
            raise InputError("tensorrt builds for the GPU that it runs on", "Leave --compute-capability out.")
        return gpu.compute_capability if gpu else None
    capability = wanted or (gpu.compute_capability if gpu else "8.6")
    known = known_compute_capabilities(backend)
    if capability not in known:
        raise InputError(
            f"TensorRT-RTX {backend.version} does not build for compute capability {capability}",
            f"Give --compute-capability one of {', '.join(known)}.",
        )
    return capability


def _note(backend: Backend, chosen: Optional[int]) -> str:
    if backend.is_rtx:
        return RTX_NOTE
    return _SILENT_NOTE if chosen is None else f"The builder chose sparse kernels for {chosen} layers."


def _warnings(backend: Backend, settings: BuildSettings, graph: Graph, eligible: int, compiled: Compiled) -> list[str]:
    skipped = count_memory_skips(compiled.warnings)
    found = {
        "The graph is FP32, for which there are no sparse kernels: export it as FP16 or INT8.": settings.sparse
        and not graph.has_sparse_kernels,
        "No layer is 2:4 and eligible, so the sparse flag changes nothing.": settings.sparse and not eligible,
        "TensorRT-RTX keeps no timing cache, so the one that was given does nothing.": backend.is_rtx
        and settings.timing_cache is not None,
        f"{skipped} tactics were skipped for want of memory; they might have been the faster ones.": skipped > 0,
    }
    return [text for text, holds in found.items() if holds]


def _text(path: Optional[Path]) -> Optional[str]:
    return None if path is None else str(path)
