"""Libraries that a machine may lack, imported when they are needed and not before."""

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
"""The command that adds each library."""


def require(name: str) -> ModuleType:
    """Import a module or say how to get it.

    Args:
        name: The module's dotted name; its first part is a key of ``INSTALL``.

    Raises:
        MissingDependencyError: The module is not there, or fails while it is imported.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # half-installed libraries fail with more than ImportError
        command = INSTALL[name.partition(".")[0]]
        raise MissingDependencyError(f"cannot import {name}: {error or type(error).__name__}", command) from error
