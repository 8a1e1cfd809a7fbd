"""Where a layer's outputs can be shifted, its own bias or the batch norm that is their only reader; and its scale.

Pruning moves the mean of a layer's outputs. A constant that is added to them anyway can undo this entirely, and the
kept weights then only need to match the deviations from the mean. The batch norm's scale says how much an error of each
channel counts after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sparsegpt_core.execution import sum_precision
from sparsegpt_core.network.weight_layout import PrunableLayer

__all__ = ["ShiftTarget", "batch_norm_scale", "record_readers"]


@dataclass(frozen=True)
class ShiftTarget:
    """A parameter or buffer that can shift the outputs of one layer."""

    tensor: Tensor
    """A bias or a batch norm's running mean (K,)."""
    sign: int
    """A shift of the outputs adds ``sign`` times itself to ``tensor``: 1 for a bias, -1 for a mean."""


def batch_norm_scale(variance: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
    """Return the size of the factors of a batch norm, |γ| / √(σ² + ε) (K,), float32; 1 where γ is 0.

    Args:
        variance: The running variance σ² (K,).
        weight: γ (K,); None: ones.
        epsilon: ε.

    Example:
        >>> batch_norm_scale(torch.tensor([3.0, 3.0]), torch.tensor([-4.0, 0.0]), epsilon=1.0).tolist()
        [2.0, 1.0]
    """
    precision = sum_precision(variance.device)
    scale = torch.rsqrt(variance.to(precision) + epsilon)
    scale = scale if weight is None else scale * weight.to(precision).abs()
    return torch.where(scale > 0, scale, 1.0).float()


class record_readers(TorchFunctionMode):
    """A context that records which operations read the outputs given to :meth:`follow`."""

    def __init__(self) -> None:
        super().__init__()
        self._outputs: dict[int, Tensor] = {}  # kept alive: no other tensor may get their id
        self._readers: dict[int, list[_Norm | None]] = {}
        self._norms: Counter[int] = Counter()

    def follow(self, output: Tensor) -> None:
        """Record the readers of this tensor from here on."""
        self._outputs[id(output)] = output

    def shift_target(
        self, name: str, calls: Mapping[str, Sequence[PrunableLayer]], output: Tensor
    ) -> ShiftTarget | None:
        """Return the tensor that shifts the outputs of a layer that runs once: its bias, or else a batch norm's mean.

        Args:
            name: The layer.
            calls: The calls of each layer, as plain layers.
            output: The output of the layer's last call.
        """
        if len(calls[name]) != 1:
            return None
        layer = calls[name][0]
        bias = layer.bias
        if bias is None:
            norm = self._batch_norm(layer, output)
            return ShiftTarget(norm.mean, -1) if norm and self._norms[id(norm.mean)] == 1 else None
        shared = any(bias is call.bias for other, made in calls.items() if other != name for call in made)
        return None if shared else ShiftTarget(bias, 1)

    def output_scale(self, layer: PrunableLayer, output: Tensor) -> Tensor | None:
        """Return :func:`batch_norm_scale` of the batch norm that is the only reader of an output; None without one."""
        norm = self._batch_norm(layer, output)
        return None if norm is None else norm.scale

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func``, and record it if it makes a tensor from a followed one."""
        keywords = dict(kwargs or {})
        result = func(*args, **keywords)
        norm = None
        if func is F.batch_norm:
            norm = _Norm.of(*args, **keywords)
            self._norms[id(norm and norm.mean)] += 1
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            for leaf in tree_leaves((args, keywords)):
                if id(leaf) in self._outputs:
                    source = keywords.get("input", args[0] if args else None)
                    self._readers.setdefault(id(leaf), []).append(norm if leaf is source else None)
        return result

    def _batch_norm(self, layer: PrunableLayer, output: Tensor) -> _Norm | None:
        """The batch norm of a layer's channels that is the only reader of an output."""
        readers = self._readers.get(id(output), [])
        has_channels = not isinstance(layer, nn.Linear) or output.ndim == 2
        return readers[0] if len(readers) == 1 and has_channels else None


@dataclass(frozen=True)
class _Norm:
    """A batch norm in eval mode."""

    mean: Tensor
    """The running mean (K,)."""
    scale: Tensor
    """Its :func:`batch_norm_scale`."""

    @classmethod
    def of(
        cls,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> _Norm | None:
        """Read the arguments of ``F.batch_norm``; None without running statistics."""
        if running_mean is None or running_var is None:
            return None
        return cls(running_mean, batch_norm_scale(running_var, weight, eps))
