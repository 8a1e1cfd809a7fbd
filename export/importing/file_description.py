"""What an ONNX file says about its images, before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.audit import read_metadata, read_model

__all__ = ["is_onnx_file", "onnx_config"]

_IMAGE_KEYS = ("image", "mean", "std", "data", "num_classes")


def is_onnx_file(spec: str) -> bool:
    """Return whether a model is named by the path of an ONNX file.

    Example:
        >>> is_onnx_file("nets/yolo.onnx"), is_onnx_file("torchvision:resnet18")
        (True, False)
    """
    return spec.lower().endswith(".onnx")


def onnx_config(path: Path) -> dict[str, Any]:
    """Return the image shape, mean and standard deviation that a file wants, as a checkpoint's metadata has them.

    They are those that this program recorded in the file. Files of others are not normalised (mean 0, standard
    deviation 1), and have an image shape where their first input is (N, C, H, W) of fixed size.

    Args:
        path: The .onnx file.

    Raises:
        InputError: The file cannot be read as ONNX.

    Example:
        >>> from export.writing import export_model, save_model
        >>> from torch import nn
        >>> save_model(export_model(nn.Conv2d(3, 4, 3), (3, 8, 8)), Path("conv.onnx"))
        >>> onnx_config(Path("conv.onnx"))
        {'mean': [0.0], 'std': [1.0], 'image': [3, 8, 8]}
    """
    model = read_model(path)
    config: dict[str, Any] = {"mean": [0.0], "std": [1.0]}
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in initializers]
    if len(inputs) == 1:
        sizes = [each.dim_value for each in inputs[0].type.tensor_type.shape.dim]
        if len(sizes) == 4 and all(sizes[1:]):
            config["image"] = sizes[1:]
    recorded = read_metadata(model)
    return config | {key: recorded[key] for key in _IMAGE_KEYS if key in recorded}
