"""Checks which libraries and which GPU this machine has, and says how to install those that are missing."""

from __future__ import annotations

__all__ = ["Check", "check_machine"]

import contextlib
import warnings
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from deploy.machine.backends import find_backend
from deploy.machine.gpu import require_gpu
from deploy.machine.libraries import require
from sparsegpt_core.errors import InputError, MissingDependencyError, SparseGPTError

_LIBRARIES = (
    # module, consequence where it is missing, whether prune-export works without it
    ("torch", "no pruning, training or export; verify, build and benchmark work", False),
    ("torchvision", "no torchvision: models and no export", False),
    ("onnx", "no export, verify or build", False),
    ("onnxruntime", "no parity check and no benchmark", False),
    ("sklearn", "no digits data set", True),
    ("timm", "no timm: models", True),
    ("polygraphy", "no engines", True),
    ("tensorrt", "engines only through TensorRT-RTX, which does not show whether sparse kernels are used", True),
    ("tensorrt_rtx", "no engine can be built on a machine without a GPU", True),
    ("pycuda", "no engine can be run or timed", True),
    ("cuda", "no engine can be timed in a CUDA graph", True),
    ("pynvml", "no clocks, power and temperature in a benchmark's result", True),
)
# Libraries whose top package can be imported although what this project uses of them cannot.
_IMPORTED_MODULES = {"pycuda": "pycuda.driver", "cuda": "cuda.bindings.driver"}


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report."""

    name: str
    """The library's module, or ``GPU``."""
    ok: bool
    """Whether it was found."""
    optional: bool
    """Whether ``prune-export``, the main command, works without it."""
    detail: str
    """The version, or the consequence where it is missing."""
    fix: str = ""
    """The command that installs it; empty where it was found."""


def check_machine() -> list[Check]:
    """Import every library that this project can use and look for a GPU; return one check for each.

    Example:
        >>> [check.name for check in check_machine() if not check.ok]  # doctest: +SKIP
        ['tensorrt', 'pycuda', 'GPU']
    """
    with contextlib.suppress(SparseGPTError):
        find_backend()  # before Polygraphy is imported below: it keeps the backend of its first import
    return [*(_check_library(*library) for library in _LIBRARIES), _check_gpu()]


def _check_library(name: str, cost: str, optional: bool) -> Check:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' own warnings
            module = require(_IMPORTED_MODULES.get(name, name))
    except MissingDependencyError as error:
        return Check(name, False, optional, f"without {name}: {cost} ({error})", error.hint)
    return Check(name, True, optional, _version(name, module))


def _version(name: str, module: Any) -> str:
    """Return a library's version: the module's own, else that of the package of its name."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return str(getattr(module, "__version__", None) or metadata.version(name))
    return "found"


def _check_gpu() -> Check:
    try:
        gpu = require_gpu()
    except InputError as error:
        cost = f"without a GPU: no TensorRT engines and no GPU latency; everything else works ({error})"
        return Check("GPU", False, True, cost, error.hint)
    detail = f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver or '?'} for CUDA {gpu.cuda}"
    return Check("GPU", True, True, detail)
