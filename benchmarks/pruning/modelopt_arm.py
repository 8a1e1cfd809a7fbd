"""NVIDIA Model Optimizer's ``sparsegpt``, on the layers that the library would prune."""

from __future__ import annotations

from typing import Any

import modelopt.torch.sparsity as mts
from torch import Tensor, nn

from sparsegpt_core.network.layer_plan import select_layers
from sparsegpt_core.patterns import NM

__all__ = ["modelopt"]

# VGG-16's last convolutions on 32×32 images have 3×3 kernels on 2×2 inputs, which fail without padding.
UNFIT = ("features.34", "features.37", "features.40")


def modelopt(model: nn.Module, batches: list[Tensor], exclude: tuple[str, ...]) -> None:
    """Sparsify ``model`` in place: its layers apply the masks when their weight is read."""
    layers = select_layers(model, batches[0][:2], NM(2, 4), exclude=exclude)
    dense = [layer.name for layer in layers if layer.reason or layer.name in UNFIT]
    rules: dict[str, Any] = {kind: {"*": {}, **dict.fromkeys(dense)} for kind in ("nn.Conv2d", "nn.Linear")}
    config = {"data_loader": batches, "collect_func": lambda batch: batch}
    mts.sparsify(model, mode=[("sparsegpt", rules)], config=config)
