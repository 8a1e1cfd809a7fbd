"""Imports optional libraries when they are needed, and says how to install a missing one."""

from __future__ import annotations

__all__ = ["INSTALL", "require"]

import importlib
from types import ModuleType

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
"""The command that installs each library."""


def require(name: str) -> ModuleType:
    """Import a module, or raise an error that says how to install it.

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
        command = INSTALL[name.partition(".")[0]]
        raise MissingDependencyError(f"cannot import {name}: {error or type(error).__name__}", command) from error
