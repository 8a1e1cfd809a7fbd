"""What an ONNX file says about its images, before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from export.audit import graph_inputs, read_metadata, read_model

__all__ = ["is_onnx_file", "onnx_config"]

_CHANNELS = (1, 3, 4)


def is_onnx_file(spec: str) -> bool:
    """Return whether a model is named by the path of an ONNX file.

    Example:
        >>> is_onnx_file("nets/yolo.onnx"), is_onnx_file("torchvision:resnet18")
        (True, False)
    """
    return spec.lower().endswith(".onnx")


def onnx_config(path: Path) -> dict[str, Any]:
    """Return the image shape, mean and standard deviation that a file wants, as a checkpoint's metadata has them.

    What this program recorded in the file comes first, with all else that it recorded. Images for files of others are
    not normalised: they are on the scale 0..1 (mean 0, standard deviation 1), or 0..255 where the input is uint8. The
    shape of images (C, H, W) is known where the only input has a fixed size. Images are (N, H, W, C) where only the
    last axis can be the channels.

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
    inputs = graph_inputs(model.graph)
    if len(inputs) == 1:
        kind = inputs[0].type.tensor_type
        sizes = [each.dim_value for each in kind.shape.dim]
        if len(sizes) == 4 and sizes[3] in _CHANNELS and sizes[1] not in _CHANNELS:
            config["channels_last"] = True
            sizes = [sizes[0], sizes[3], *sizes[1:3]]
        if len(sizes) == 4 and all(sizes[1:]):
            config["image"] = sizes[1:]
        if kind.elem_type == onnx.TensorProto.UINT8:
            config["std"] = [1 / 255]
    return config | read_metadata(model)
