"""The networks of the doors, trained a little: random ones have near-ties, which rounding decides."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sparsegpt_core.zoo import ModelShape, build_model

__all__ = ["build", "digits", "trained"]

CLASSES, STEPS, BATCH = 10, 24, 32
TRAINING = 512  # the first digit to train on
SIZES = {"simple_cnn": 8, "yolo_like": 128}  # pixels; 64 for the other networks


def build(name: str) -> nn.Module:
    """Build a network with random weights, from one seed."""
    torch.manual_seed(0)
    if name == "yolo_like":
        return Detector().eval()
    spec = name if name == "simple_cnn" else f"torchvision:{name}"
    return build_model(spec, ModelShape((3, *(SIZES.get(name, 64),) * 2), num_classes=CLASSES)).eval()


def digits(name: str, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Handwritten digits in the network's size, (N, 3, H, W) with a little noise, and their labels."""
    grey, labels = load_digits(return_X_y=True)
    chosen, size = slice(first, first + count), SIZES.get(name, 64)
    images = torch.from_numpy(grey[chosen] / 16).float().reshape(-1, 1, 8, 8)
    images = F.interpolate(images, (size, size), mode="bilinear").expand(-1, 3, -1, -1)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(first))
    return images + 0.1 * noise, torch.from_numpy(labels[chosen])


def trained(name: str) -> nn.Module:
    """Train a network for 24 steps on 768 digits that are not used for calibration."""
    network = build(name).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for step in range(STEPS):
        images, labels = digits(name, TRAINING + BATCH * step, BATCH)
        optimizer.zero_grad()
        F.cross_entropy(_logits(network(images)), labels).backward()
        optimizer.step()
    return network.eval()


def _logits(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the logits, of a detector the means of its maps."""
    return outputs if isinstance(outputs, Tensor) else sum((x.mean((2, 3)) for x in outputs), torch.zeros(()))


class Detector(nn.Module):
    """A detector of YOLOv8's kind: C2f blocks, a pyramid that goes down and up again, three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 16, 3, 2), _conv(16, 32, 3, 2), C2f(32, 32, 1))
        self.stage3 = nn.Sequential(_conv(32, 64, 3, 2), C2f(64, 64, 2))
        self.stage4 = nn.Sequential(_conv(64, 128, 3, 2), C2f(128, 128, 2))
        self.stage5 = nn.Sequential(_conv(128, 256, 3, 2), C2f(256, 256, 1), Pool(256))
        self.down4, self.down3 = C2f(384, 128, 1), C2f(192, 64, 1)
        self.step4, self.up4 = _conv(64, 64, 3, 2), C2f(192, 128, 1)
        self.step5, self.up5 = _conv(128, 128, 3, 2), C2f(384, 256, 1)
        self.heads = nn.ModuleList(nn.Sequential(_conv(c, 64, 3), nn.Conv2d(64, CLASSES, 1)) for c in (64, 128, 256))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return three maps (N, classes, H, W) for images (N, 3, H, W)."""
        c3 = self.stage3(self.stem(images))
        c4 = self.stage4(c3)
        c5 = self.stage5(c4)
        d4 = self.down4(torch.cat([F.interpolate(c5, scale_factor=2.0), c4], 1))
        d3 = self.down3(torch.cat([F.interpolate(d4, scale_factor=2.0), c3], 1))
        u4 = self.up4(torch.cat([self.step4(d3), d4], 1))
        u5 = self.up5(torch.cat([self.step5(u4), c5], 1))
        return tuple(head(x) for head, x in zip(self.heads, (d3, u4, u5), strict=True))


class C2f(nn.Module):
    """A split, bottlenecks one after another, and a concatenation of all their outputs."""

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        super().__init__()
        half = outputs // 2
        self.enter, self.leave = _conv(inputs, outputs, 1), _conv((2 + count) * half, outputs, 1)
        self.blocks = nn.ModuleList(nn.Sequential(_conv(half, half, 3), _conv(half, half, 3)) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H, W)."""
        parts = [*self.enter(x).chunk(2, 1)]
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        left: Tensor = self.leave(torch.cat(parts, 1))
        return left


class Pool(nn.Module):
    """Maxima of four sizes, side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter, self.leave = _conv(channels, channels // 2, 1), _conv(2 * channels, channels, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        left: Tensor = self.leave(torch.cat(parts, 1))
        return left


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU())
