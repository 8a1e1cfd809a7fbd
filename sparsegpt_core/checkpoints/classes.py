"""Reads the number of classes off the weights of a network's last layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparsegpt_core.checkpoints.names import match_names
from sparsegpt_core.errors import ModelError
from sparsegpt_core.zoo import ModelShape, build_model, takes_num_classes

__all__ = ["count_classes"]

_FEW = (2, 3)  # two numbers of classes tell how the rows of each weight depend on it


def count_classes(
    spec: str,
    image: tuple[int, ...],
    state: Mapping[str, Tensor],
    arguments: Mapping[str, Any] | None = None,
) -> int | None:
    """Return the number of classes with which a network has as many rows in each weight as the checkpoint has.

    The rows of a weight may be any linear function of the classes: nine anchors for each class, one background class.

    Args:
        spec: The network, as :func:`build_model` takes it. It is built twice, on the meta device where it can be.
        image: The shape (C, H, W) of an image.
        state: The weights, by name.
        arguments: Keyword arguments of the network's factory.

    Returns:
        The number; None if the network's shapes do not depend on it, or the weights are those of no number.

    Example:
        >>> state = build_model("simple_cnn", ModelShape((1, 8, 8), 7)).state_dict()
        >>> count_classes("simple_cnn", (1, 8, 8), state)
        7
    """
    if not takes_num_classes(spec):
        return None
    few, more = (_shapes(spec, ModelShape(image, count), arguments or {}) for count in _FEW)
    matched, _ = match_names(state, few)
    counts = set()
    for name, shape in few.items():
        added = more[name][0] - shape[0] if shape else 0
        if added and name in matched and matched[name].ndim:
            counts.add((len(matched[name]) - shape[0]) / added + _FEW[0])
    count = counts.pop() if len(counts) == 1 else 0.0
    return int(count) if count >= 1 and count.is_integer() else None


def _shapes(spec: str, shape: ModelShape, arguments: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Return the shapes of a network's weights; empty if it cannot be built with these classes."""
    for device in ("meta", "cpu"):  # a few networks, such as RegNet, read numbers of their weights
        try:
            with torch.device(device):
                return {name: value.shape for name, value in build_model(spec, shape, arguments).state_dict().items()}
        except ModelError:
            continue
    return {}
