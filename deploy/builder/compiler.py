"""Builds one engine through Polygraphy and keeps the lines of the build log that matter."""

from __future__ import annotations

__all__ = ["Compiled", "compile_engine", "precision_flags", "share_profiles"]

import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Optional, Tuple

from deploy.builder.progress_monitor import PERCENT, build_monitor
from deploy.builder.settings import BuildSettings
from deploy.builder.timing_cache import load_timing_cache, save_timing_cache
from deploy.graph import Graph, ShapeRange
from deploy.machine import Backend, require, run_interruptibly
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.progress import Progress, silent


@dataclass(frozen=True)
class Compiled:
    """A serialised engine and its build log."""

    plan: bytes
    """The serialised engine."""
    sparsity: list[str]
    """Log lines about sparsity."""
    warnings: list[str]
    """Log lines with warnings."""
    precisions: Dict[str, Optional[bool]]
    """Whether the flags ``tf32``, ``fp16`` and ``int8`` are set; None where the graph's types decide."""
    seconds: float
    """Time to parse and build."""


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep Polygraphy's log off standard output, which belongs to ``--json``."""
    log = require("polygraphy.logger").G_LOGGER
    with warnings.catch_warnings(), log.verbosity(log.CRITICAL + 1):
        # Polygraphy calls functions that newer versions deprecate.
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def compile_engine(
    backend: Backend,
    path: Path,
    graph: Graph,
    profile: Mapping[str, ShapeRange],
    settings: BuildSettings,
    compute_capability: Optional[str],
    progress: Progress = silent,
) -> Compiled:
    """Parse an ONNX file and build its engine.

    Args:
        backend: The builder.
        path: The ONNX file, with its external data in the same folder.
        graph: The graph of the same file.
        profile: The min, opt and max shape of each input.
        settings: Settings of the build.
        compute_capability: The GPU that TensorRT-RTX builds for, such as ``8.6``; None for TensorRT.
        progress: Receives the stages ``parse`` and ``build``; ``build`` counts percent.

    Raises:
        InputError: This backend does not know a setting, or the timing cache does not match its sidecar.
        ModelError: The graph cannot be parsed or built; the message quotes the builder.
        KeyboardInterrupt: The user pressed Ctrl-C. Builders before TensorRT 10 continue until the process ends.
    """
    logger = capturing_logger(backend.module)
    logger.lines.clear()
    keep = None if backend.is_rtx else settings.timing_cache
    measured = load_timing_cache(keep) if keep else None
    stopped = threading.Event()

    @_silenced()
    def build() -> Tuple[bytes, bytes, Dict[str, Optional[bool]]]:
        polygraphy = require("polygraphy.backend.trt")
        util: Any = require("polygraphy.backend.trt.util")
        util.TRT_LOGGER = logger  # Polygraphy passes it to the builder and the parser
        typed = hasattr(backend.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
        parse = polygraphy.NetworkFromOnnxPath(str(path), strongly_typed=typed)
        create_config = _config(backend, graph, profile, settings, compute_capability)
        progress("parse", 0, 1)
        network = _call(parse, backend, path, logger)
        progress("parse", 1, 1)
        progress("build", 0, PERCENT)
        config = _call(lambda: create_config(*network[:2]), backend, path, logger)
        if measured is not None:
            # Polygraphy set an empty cache, which stays if this one is of another GPU or version.
            config.set_timing_cache(config.create_timing_cache(measured), ignore_mismatch=False)
        monitor = build_monitor(backend.module, progress, stopped)
        if monitor is not None:
            config.progress_monitor = monitor
        plan = bytes(_call(polygraphy.EngineBytesFromNetwork(network, config), backend, path, logger))
        progress("build", PERCENT, PERCENT)
        cache = bytes(config.get_timing_cache().serialize()) if keep else b""
        return plan, cache, _precisions(backend.module, config)

    start = time.perf_counter()
    plan, cache, precisions = run_interruptibly(build, stopped.set)
    seconds = time.perf_counter() - start
    if keep:
        save_timing_cache(keep, cache, backend.name, backend.version)
    return Compiled(
        plan=plan,
        sparsity=[text for _, text in logger.lines if "(Sparsity)" in text],
        warnings=[text for level, text in logger.lines if level == "WARNING"],
        precisions=precisions,
        seconds=seconds,
    )


def precision_flags(trt: ModuleType, graph: Graph) -> Dict[str, bool]:
    """Return the precisions to enable, by Polygraphy's names.

    FP32 layers may use TF32, as TensorRT's own default is. Strongly typed builders read all other precisions from the
    graph. Weakly typed ones such as 8.x need flags, and run the layers of a Q/DQ graph that are not quantised in FP16.
    """
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") or not hasattr(trt.BuilderFlag, "FP16"):
        return {"tf32": True}
    return {"tf32": True, "fp16": graph.fp16 or graph.quantized, "int8": graph.quantized}


def _precisions(trt: ModuleType, config: Any) -> Dict[str, Optional[bool]]:
    weakly_typed = not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    return {
        name: config.get_flag(getattr(trt.BuilderFlag, name.upper())) if name == "tf32" or weakly_typed else None
        for name in ("tf32", "fp16", "int8")
    }


def share_profiles(trt: ModuleType, create: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Let several execution contexts of an engine share one profile. Only 8.6 needs a flag for it.

    Args:
        trt: The builder's module.
        create: Makes the builder's configuration from builder and network.
    """
    known = getattr(getattr(trt, "PreviewFeature", None), "__members__", {})
    feature = known.get("PROFILE_SHARING_0806")
    if feature is None or hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return create

    def shared(builder: Any, network: Any) -> Any:
        config = create(builder, network)
        config.set_preview_feature(feature, True)  # Polygraphy's argument would disable all other features
        return config

    return shared


def _call(stage: Callable[[], Any], backend: Backend, path: Path, logger: Any) -> Any:
    """Run a loader of Polygraphy; an error quotes the builder's own message."""
    try:
        return stage()
    except Exception as error:  # Polygraphy, pybind and the file system share no base class
        reason = _reason(logger, error)
        raise ModelError(f"{backend.name} cannot build {path}: {reason}", _hint(backend, reason)) from error


def _reason(logger: Any, error: Exception) -> str:
    """Return the builder's first error; else its last warning about CUDA, which is all that 8.x says of a driver."""
    errors = [text for level, text in logger.lines if level.endswith("ERROR")]
    warned = [text for level, text in logger.lines if level == "WARNING" and "CUDA" in text]
    return str((errors[:1] or warned[-1:] or [error])[0])


def _config(
    backend: Backend,
    graph: Graph,
    profile: Mapping[str, ShapeRange],
    settings: BuildSettings,
    compute_capability: Optional[str],
) -> Any:
    polygraphy, trt = require("polygraphy.backend.trt"), backend.module
    shapes = polygraphy.Profile()
    for name, (low, best, high) in profile.items():
        shapes.add(name, low, best, high)
    common = {
        "profiles": [shapes],
        "sparse_weights": settings.sparse,
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,  # needed for the inspector to name tactics
        "builder_optimization_level": settings.opt_level,
        "tactic_sources": _tactic_sources(trt, settings.tactic_sources),
        "memory_pool_limits": settings.workspace and {trt.MemoryPoolType.WORKSPACE: settings.workspace},
        "version_compatible": settings.version_compatible,
        "hardware_compatibility_level": _hardware_level(backend, settings.hardware),
    }
    if compute_capability:
        major, minor = compute_capability.split(".")
        rtx = require("polygraphy.backend.tensorrt_rtx")
        return rtx.CreateConfigRTX(compute_capabilities=[(int(major), int(minor))], **common)
    return share_profiles(trt, polygraphy.CreateConfig(**precision_flags(trt, graph), **common))


def _tactic_sources(trt: ModuleType, names: Optional[tuple[str, ...]]) -> Optional[list[Any]]:
    if names is None:
        return None
    known = trt.TacticSource.__members__
    unknown = [name for name in names if name.upper() not in known]
    if unknown:
        raise InputError(f"unknown tactic source '{unknown[0]}'", f"This TensorRT knows: {', '.join(known)}.")
    return [known[name.upper()] for name in names]


def _hardware_level(backend: Backend, name: Optional[str]) -> Any:
    if name is None:
        return None
    if backend.is_rtx:
        raise InputError("TensorRT-RTX has no hardware compatibility levels", "Use `compute_capability`.")
    known = getattr(getattr(backend.module, "HardwareCompatibilityLevel", None), "__members__", {})
    level = known.get(name.upper().replace("-", "_"))
    if level is None:
        raise InputError(f"TensorRT {backend.version} has no hardware compatibility '{name}'", "Leave out `hardware`.")
    return level


def _hint(backend: Backend, reason: str) -> str:
    if not backend.is_rtx and "CUDA" in reason:
        return "TensorRT needs an NVIDIA GPU to build; `backend=tensorrt-rtx` builds without one."
    return (
        "If this names a setting, change it. Else run `sparsegpt-trt verify` on the file, "
        "or export it again with FP32, FP16 or Q/DQ INT8 precision."
    )


@cache
def capturing_logger(trt: ModuleType) -> Any:
    """Return the logger of this process: TensorRT keeps the first logger that it gets.

    Example:
        >>> logger = capturing_logger(find_backend().module)  # doctest: +SKIP
        >>> logger.lines  # doctest: +SKIP
        [('WARNING', 'Unable to determine GPU memory usage')]
    """

    class CapturingLogger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            # Newer versions report sparsity at VERBOSE, so the logger gets everything and keeps little.
            if severity.name in {"WARNING", "ERROR", "INTERNAL_ERROR"} or "(Sparsity)" in message:
                self.lines.append((severity.name, message))

    return CapturingLogger()
