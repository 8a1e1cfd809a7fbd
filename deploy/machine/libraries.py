"""Imports optional libraries when they are needed, and says how to install a missing one."""

from __future__ import annotations

__all__ = ["INSTALL", "install_command", "require"]

import importlib
import re
from types import ModuleType
from typing import Optional

from deploy.machine.gpu import NO_DRIVER_HINT, find_cuda_version
from sparsegpt_core.errors import MissingDependencyError

INSTALL = {
    "onnx": "pip install onnx",
    "onnxruntime": "pip install onnxruntime",
    "polygraphy": "pip install polygraphy",
    "tensorrt": "pip install tensorrt",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13",
    "pycuda": "pip install pycuda",
    "cuda": "pip install cuda-python",
    "pynvml": "pip install nvidia-ml-py",
    "torch": "pip install torch",
    "torchvision": "pip install torchvision",
    "timm": "pip install timm",
    "sklearn": "pip install scikit-learn",
}
"""The command that installs each library; for drivers that support CUDA 13 where that matters."""

_FOR_CUDA_12 = {
    "tensorrt": "pip install tensorrt-cu12",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu12",
    "cuda": 'pip install "cuda-python==12.*"',
}


def install_command(name: str) -> str:
    """Return the command that installs a library which fits this machine's driver.

    Args:
        name: A key of ``INSTALL``.

    Example:
        >>> install_command("onnx")
        'pip install onnx'
        >>> install_command("tensorrt")  # doctest: +SKIP
        'pip install tensorrt-cu12 (the driver supports CUDA 12.8)'
    """
    newest, older = INSTALL[name], _FOR_CUDA_12.get(name)
    if older is None:
        return newest
    cuda = find_cuda_version()
    if cuda is None:
        return f"{newest} (a driver before 580 needs {older})"
    major = int(cuda.partition(".")[0])
    if major >= 13:
        return newest
    update = " and update the driver to 525 or newer" if major < 12 else ""
    return f"{older}{update} (the driver supports CUDA {cuda})"


def require(name: str) -> ModuleType:
    """Import a module, or raise an error that says how to install it or the shared library that it lacks.

    Args:
        name: The module's dotted name. Its first part is a key of ``INSTALL``.

    Raises:
        MissingDependencyError: The module is not installed, or fails while it is imported.

    Example:
        >>> require("onnx.helper").__name__
        'onnx.helper'
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # half-installed libraries fail with more than ImportError
        hint = _advice_on_shared_library(str(error)) or install_command(name.partition(".")[0])
        raise MissingDependencyError(f"cannot import {name}: {error or type(error).__name__}", hint) from error


def _advice_on_shared_library(said: str) -> Optional[str]:
    """Return how to get the shared library that an import lacks, or None where none is missing."""
    if "libcuda.so" in said:
        return NO_DRIVER_HINT
    missing = re.search(r"(\S+\.so[.0-9]*): cannot open shared object file", said)
    return f"Install {missing[1]}, or add its folder to LD_LIBRARY_PATH." if missing else None
