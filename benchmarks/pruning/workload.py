"""The networks and images of all arms: random, from one seed, the same in every process."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.pruning.records import Job
from sparsegpt_core.zoo import ModelShape, build_model

__all__ = ["EXCLUDE", "workload"]

BATCH = 32
SIZES = {"simple_cnn": 8, "vgg16_cifar": 32}  # pixels; 224 for the other networks

# VGG-16's first linear layer has 25,088 inputs: its factorisation alone would take most of the time.
EXCLUDE = {"vgg16_cifar": ("classifier.0",)}


def workload(job: Job) -> tuple[nn.Module, list[Tensor]]:
    """Build the network, in eval mode, and its calibration batches of at most 32 images."""
    torch.manual_seed(0)
    size = SIZES.get(job.model, 224)
    model = build_model(job.model, ModelShape((3, size, size)))
    batches = [_images(min(BATCH, job.images - start), size) for start in range(0, job.images, BATCH)]
    _settle(model, batches[0])
    return model.eval(), batches


def _images(count: int, size: int) -> Tensor:
    """Coarse and fine noise: neighbouring pixels are similar, as in photographs."""
    coarse = F.interpolate(torch.randn(count, 3, size // 8, size // 8), (size, size), mode="bilinear")
    return coarse + 0.3 * torch.randn(count, 3, size, size)


def _settle(model: nn.Module, batch: Tensor) -> None:
    """Give batch norms the statistics of a batch: otherwise the activations of a deep random network explode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(batch)
