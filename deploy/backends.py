"""TensorRT or TensorRT-RTX: which one is here, and Polygraphy's switch between them."""

from __future__ import annotations

__all__ = ["BACKENDS", "Backend", "find_backend"]

import os
import sys
from dataclasses import dataclass
from types import ModuleType

from deploy.optional import INSTALL, require
from sparsegpt_core.errors import InputError, MissingDependencyError

BACKENDS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Backend names and their modules, the preferred one first."""


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
        name: ``tensorrt``, ``tensorrt-rtx``, or ``auto`` for the first of them that imports.

    Raises:
        InputError: The name is unknown, or Polygraphy already serves the other backend in this process.
        MissingDependencyError: No such backend can be imported.
    """
    if name != "auto" and name not in BACKENDS:
        raise InputError(f"unknown backend '{name}'", f"Use auto, {' or '.join(BACKENDS)}.")
    problems = []
    for candidate in BACKENDS if name == "auto" else [name]:
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
