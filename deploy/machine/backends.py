"""TensorRT or TensorRT-RTX: which one is here, and Polygraphy's switch between them."""

from __future__ import annotations

__all__ = ["BACKENDS", "Backend", "find_backend"]

import os
import sys
from dataclasses import dataclass
from types import ModuleType

from deploy.machine.environment import find_gpu
from deploy.machine.libraries import INSTALL, require
from sparsegpt_core.errors import InputError, MissingDependencyError

BACKENDS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Backend names and their modules."""


@dataclass(frozen=True)
class Backend:
    """An importable engine builder."""

    name: str
    module: ModuleType
    version: str

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT-RTX, which builds ahead of time and without a GPU."""
        return self.name == "tensorrt-rtx"


def find_backend(name: str = "auto") -> Backend:
    """Import a backend and point Polygraphy at it.

    Args:
        name: ``tensorrt``, ``tensorrt-rtx``, or ``auto`` for the first that imports: ``tensorrt`` before
            ``tensorrt-rtx`` where there is a GPU, after it where there is none, since only the latter can build then.

    Raises:
        InputError: The name is unknown, or Polygraphy already serves the other backend in this process.
        MissingDependencyError: No such backend can be imported.
    """
    if name != "auto" and name not in BACKENDS:
        raise InputError(f"unknown backend '{name}'", f"Use auto, {' or '.join(BACKENDS)}.")
    problems = []
    order = list(BACKENDS) if find_gpu() else list(reversed(BACKENDS))
    for candidate in order if name == "auto" else [name]:
        try:
            module = _import(BACKENDS[candidate])
        except MissingDependencyError as error:
            problems.append(error)
            continue
        _point_polygraphy_at(candidate)
        return Backend(candidate, module, str(module.__version__))
    raise MissingDependencyError("; ".join(map(str, problems)), ", or ".join(problem.hint for problem in problems))


def _import(module_name: str) -> ModuleType:
    module = require(module_name)
    if not hasattr(module, "Builder"):  # an empty folder of that name also imports
        raise MissingDependencyError(f"{module_name} is importable but holds no builder", INSTALL[module_name])
    return module


def _point_polygraphy_at(name: str) -> None:
    """Polygraphy reads this variable once, when it is first imported."""
    wanted = name == "tensorrt-rtx"
    loaded = sys.modules.get("polygraphy.config")
    if loaded is not None and wanted != loaded.USE_TENSORRT_RTX:
        raise InputError(
            f"Polygraphy is already loaded for the other backend, so {name} cannot be used in this process",
            "Use one backend per process.",
        )
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1" if wanted else "0"
