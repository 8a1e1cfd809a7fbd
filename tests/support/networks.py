"""Helpers that several test files share."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


class Mixer(nn.Module):
    """A convolution with batch norm, linear layers on (N, tokens, channels), and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.shared = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu().flatten(2).transpose(1, 2)
        x = self.mlp(x).mean(1)
        return self.head(self.shared(self.shared(x)))


class AttentionNet(nn.Module):
    """A convolution, a Transformer layer that normalises before its attention, and a head for images 3×32×32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 8, 8)
        self.encoder = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=True)
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.encoder(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


class FunctionalNet(nn.Module):
    """Functions that multiply by parameters: a convolution, attention, and a product for windows of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 16, 1)
        self.kernel = nn.Parameter(torch.randn(16, 16, 3, 3) / 12)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mixing = nn.ParameterDict({"weight": torch.randn(16, 16) / 4, "bias": torch.randn(16)})
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = F.conv2d(self.stem(x).relu(), self.kernel, padding=1).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = F.linear(x.reshape(-1, 16, 16), self.mixing["weight"], self.mixing["bias"])
        return self.head(x.relu().mean(1)).reshape(-1, 4, 4).mean(1)


def images(counts=(5, 3), size=8):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, 4, size, size, generator=generator) for count in counts]


def tiny() -> nn.Module:
    """A network for which a cell takes a tenth of a second."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 24, 3, stride=2, padding=1),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(384, 64),
            relu3=nn.ReLU(),
            fc2=nn.Linear(64, 10),
        )
    )


def digits_net() -> nn.Sequential:
    """A network for the digits that trains in seconds, with batch norm and dropout."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(256, 10),
    )
