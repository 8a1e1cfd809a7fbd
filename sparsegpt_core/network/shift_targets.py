"""Where a layer's outputs can be shifted: its own bias, or the batch norm that is their only reader.

Pruning moves the mean of a layer's outputs. A constant that is added to them anyway can undo this entirely, and the
kept weights then only need to match the deviations from the mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sparsegpt_core.network.weight_layout import PrunableLayer

__all__ = ["ShiftTarget", "record_readers"]


@dataclass(frozen=True)
class ShiftTarget:
    """A parameter or buffer that can shift the outputs of one layer."""

    tensor: Tensor
    """A bias or a batch norm's running mean (K,)."""
    sign: int
    """A shift of the outputs adds ``sign`` times itself to ``tensor``: 1 for a bias, -1 for a mean."""


class record_readers(TorchFunctionMode):
    """A context that records which operations read the outputs given to :meth:`follow`."""

    def __init__(self) -> None:
        super().__init__()
        self._outputs: dict[int, Tensor] = {}  # kept alive: no other tensor may get their id
        self._readers: dict[int, list[Tensor | None]] = {}
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
        bias = calls[name][0].bias
        if bias is None:
            mean = self._batch_norm_mean(output)
            return None if mean is None else ShiftTarget(mean, -1)
        shared = any(bias is call.bias for other, made in calls.items() if other != name for call in made)
        return None if shared else ShiftTarget(bias, 1)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func``, and record it if it makes a tensor from a followed one."""
        keywords = dict(kwargs or {})
        result = func(*args, **keywords)
        mean = None
        if func is F.batch_norm:
            mean = keywords.get("running_mean", args[1] if len(args) > 1 else None)
            self._norms[id(mean)] += 1
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            for leaf in tree_leaves((args, keywords)):
                if id(leaf) in self._outputs:
                    source = keywords.get("input", args[0] if args else None)
                    self._readers.setdefault(id(leaf), []).append(mean if leaf is source else None)
        return result

    def _batch_norm_mean(self, output: Tensor) -> Tensor | None:
        """The running mean of the batch norm that is the only reader of an output and runs once."""
        readers = self._readers.get(id(output), [])
        mean = readers[0] if len(readers) == 1 else None
        return mean if mean is not None and self._norms[id(mean)] == 1 else None
