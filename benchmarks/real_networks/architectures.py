"""The networks whose packages come without a PyTorch module, and readers of their weights."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["HED", "RRDBNet", "read_hed", "read_ncnn"]

_BLOCKS = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))
_FP16_TAG = 0x01306B47  # before a convolution's weights in an ncnn file


class HED(nn.Module):
    """Edges by Xie and Tu (2015): VGG-16, a map of each block, and their weighted sum, (N, 1, H, W) from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=1) for inputs, outputs in pairwise(widths))
            for widths in _BLOCKS
        )
        self.sides = nn.ModuleList(nn.Conv2d(widths[-1], 1, 1) for widths in _BLOCKS)
        self.fuse = nn.Conv2d(len(_BLOCKS), 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps, x = [], images
        for number, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            x = F.max_pool2d(x, 2) if number else x
            for layer in block.children():
                x = layer(x).relu()
            maps.append(F.interpolate(side(x), images.shape[-2:], mode="bilinear"))
        fused: Tensor = self.fuse(torch.cat(maps, 1))
        return fused.sigmoid()


def read_hed(path: Path) -> HED:
    """Read HED from a Keras file. Needs h5py."""
    network, h5py = HED(), importlib.import_module("h5py")
    places = {f"dsn{number}": layer for number, layer in enumerate(network.sides, 1)} | {"fuse": network.fuse}
    for number, block in enumerate(network.blocks, 1):
        for index, layer in enumerate(block.children()):
            places[f"block{number}/layers/conv2d{f'_{index}' if index else ''}"] = layer
    with h5py.File(path) as file:
        for place, layer in places.items():
            kernel, bias = (torch.from_numpy(file[f"{place}/vars/{index}"][:]) for index in (0, 1))
            layer.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": bias})
    return network.eval()


class _DenseBlock(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        widths = [channels + index * growth for index in range(5)]
        self.layers = nn.ModuleList(
            nn.Conv2d(width, channels if width == widths[-1] else growth, 3, padding=1) for width in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer in self.layers[:-1]:
            values.append(F.leaky_relu(layer(torch.cat(values, 1)), 0.2))
        residual: Tensor = self.layers[-1](torch.cat(values, 1))
        return x + 0.2 * residual


class RRDBNet(nn.Module):
    """The generator of ESRGAN by Wang et al. (2018): images (N, 3, H, W) from 0 to 1 to images (N, 3, 4 H, 4 W)."""

    def __init__(self, channels: int = 64, blocks: int = 23, growth: int = 32) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=1)

        self.first = conv(3, channels)
        self.body = nn.ModuleList(
            nn.Sequential(*(_DenseBlock(channels, growth) for _ in range(3))) for _ in range(blocks)
        )
        self.trunk = conv(channels, channels)
        self.up = nn.ModuleList(conv(channels, channels) for _ in range(2))
        self.high = conv(channels, channels)
        self.last = conv(channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = first = self.first(images)
        for block in self.body:
            x = x + 0.2 * block(x)
        x = first + self.trunk(x)
        for layer in self.up:
            x = F.leaky_relu(layer(F.interpolate(x, scale_factor=2.0)), 0.2)
        result: Tensor = self.last(F.leaky_relu(self.high(x), 0.2))
        return result


def read_ncnn(path: Path, network: nn.Module) -> nn.Module:
    """Read the weights of a network whose layers are all convolutions, in running order, from ncnn's .bin (FP16)."""
    data, offset = path.read_bytes(), 0
    for layer in network.modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        count, channels = layer.weight.numel(), layer.out_channels
        if int.from_bytes(data[offset : offset + 4], "little") != _FP16_TAG:
            raise ValueError(f"{path}: no FP16 weights at byte {offset}")
        weight = np.frombuffer(data, "<f2", count, offset + 4).astype(np.float32).reshape(layer.weight.shape)
        offset += 4 + (2 * count + 3) // 4 * 4
        bias = np.frombuffer(data, "<f4", channels, offset).copy()
        offset += 4 * channels
        layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    if offset != len(data):
        raise ValueError(f"{path}: {len(data) - offset} bytes are left over")
    return network.eval()
