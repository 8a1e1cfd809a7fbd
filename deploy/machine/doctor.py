"""What this machine can do, what is missing, what that costs, and the command that mends it."""

from __future__ import annotations

__all__ = ["Check", "check_machine"]

import contextlib
import warnings
from dataclasses import dataclass

from deploy.machine.backends import find_backend
from deploy.machine.environment import find_gpu
from deploy.machine.libraries import INSTALL, require
from sparsegpt_core.errors import MissingDependencyError, SparseGPTError

_LIBRARIES = (
    # module, what it is without, whether the main job does without it
    ("torch", "no pruning, training or export; verify, build and benchmark work", False),
    ("torchvision", "no torchvision: models and no export", False),
    ("onnx", "no export, verify or build", False),
    ("onnxruntime", "no parity check and no benchmark", False),
    ("sklearn", "no digits data set", True),
    ("timm", "no timm: models", True),
    ("polygraphy", "no engines", True),
    ("tensorrt", "engines only through TensorRT-RTX, which tells nothing about sparse kernels", True),
    ("tensorrt_rtx", "no engine can be built on a machine without a GPU", True),
    ("pycuda", "no engine can be run or timed", True),
    ("cuda", "no engine can be timed in a CUDA graph", True),
    ("pynvml", "no clocks, power and temperature beside a measurement", True),
)
_IMPORTED_MODULES = {
    "pycuda": "pycuda.driver",
    "cuda": "cuda.bindings.driver",
}  # which need more than the package itself


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report.

    ``optional`` is true where ``prune-export``, the main job, does without it; ``detail`` is the version, or
    what is missing and what that costs; ``fix`` is the command that mends it, empty where nothing need be done.
    """

    name: str
    ok: bool
    optional: bool
    detail: str
    fix: str = ""


def check_machine() -> list[Check]:
    """Import every library this project can use, look for a GPU, and report on each."""
    with contextlib.suppress(SparseGPTError):
        find_backend()  # Polygraphy, imported below, keeps to the backend that it finds chosen
    return [*(_check_library(*library) for library in _LIBRARIES), _check_gpu()]


def _check_library(name: str, cost: str, optional: bool) -> Check:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs, and not what was asked
            module = require(_IMPORTED_MODULES.get(name, name))
    except MissingDependencyError as error:
        return Check(name, False, optional, f"without {name}: {cost} ({error})", INSTALL[name])
    return Check(name, True, optional, str(getattr(module, "__version__", "found")))


def _check_gpu() -> Check:
    gpu = find_gpu()
    if gpu:
        return Check("GPU", True, True, f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver}")
    cost = "without a GPU: no TensorRT engines and no GPU latency; everything else works (none was found)"
    return Check("GPU", False, True, cost, "Use a machine with an NVIDIA GPU and its driver, or docker run --gpus all.")
