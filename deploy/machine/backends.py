"""Finds TensorRT or TensorRT-RTX, and makes Polygraphy use the one that was found."""

from __future__ import annotations

__all__ = ["BACKENDS", "Backend", "find_backend", "known_compute_capabilities"]

import os
import sys
from dataclasses import dataclass
from types import ModuleType

from deploy.machine.gpu import find_gpu
from deploy.machine.libraries import install_command, require
from sparsegpt_core.errors import InputError, MissingDependencyError

BACKENDS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Module names by backend name."""


@dataclass(frozen=True)
class Backend:
    """An importable engine builder."""

    name: str
    """A key of ``BACKENDS``."""
    module: ModuleType
    """The imported module."""
    version: str
    """The module's version, such as ``10.9.0``."""

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT-RTX, which can build without a GPU."""
        return self.name == "tensorrt-rtx"


def find_backend(name: str = "auto") -> Backend:
    """Import a backend and make Polygraphy use it.

    Args:
        name: ``tensorrt``, ``tensorrt-rtx`` or ``auto``. ``auto`` takes the first that can be imported: with a GPU
            ``tensorrt`` is tried first, without one ``tensorrt-rtx``, since only that builds without a GPU.

    Raises:
        InputError: The name is unknown, or Polygraphy already uses the other backend in this process.
        MissingDependencyError: No such backend can be imported.

    Example:
        >>> find_backend().name  # doctest: +SKIP
        'tensorrt'
        >>> find_backend("cuda")
        Traceback (most recent call last):
        sparsegpt_core.errors.InputError: unknown backend 'cuda'
    """
    if name != "auto" and name not in BACKENDS:
        raise InputError(f"unknown backend '{name}'", f"Use auto, {' or '.join(BACKENDS)}.")
    problems = []
    for candidate in _order() if name == "auto" else [name]:
        try:
            module = _import(BACKENDS[candidate])
        except MissingDependencyError as error:
            problems.append(error)
            continue
        _point_polygraphy_at(candidate)
        return Backend(candidate, module, str(module.__version__))
    raise MissingDependencyError("; ".join(map(str, problems)), ", or ".join(problem.hint for problem in problems))


def known_compute_capabilities(backend: Backend) -> list[str]:
    """List the compute capabilities that TensorRT-RTX can build for, such as ``8.6``.

    Example:
        >>> known_compute_capabilities(find_backend("tensorrt-rtx"))  # doctest: +SKIP
        ['7.5', '8.0', '8.6', '8.9', '12.0', '12.1']
    """
    names = (name[2:] for name in backend.module.ComputeCapability.__members__ if name.startswith("SM"))
    return [f"{digits[:-1]}.{digits[-1]}" for digits in names]


def _order() -> list[str]:
    return list(BACKENDS) if find_gpu() else list(reversed(BACKENDS))


def _import(module_name: str) -> ModuleType:
    module = require(module_name)
    if not hasattr(module, "Builder"):  # an empty folder of that name can be imported, too
        raise MissingDependencyError(f"{module_name} can be imported but has no Builder", install_command(module_name))
    return module


def _point_polygraphy_at(name: str) -> None:
    """Set the variable that Polygraphy reads once, when it is first imported."""
    wanted = name == "tensorrt-rtx"
    loaded = sys.modules.get("polygraphy.config")
    if loaded is not None and wanted != loaded.USE_TENSORRT_RTX:
        raise InputError(
            f"Polygraphy is already loaded for the other backend, so {name} cannot be used in this process",
            "Use one backend per process.",
        )
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1" if wanted else "0"
