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

    def batch_norm_mean(self, output: Tensor) -> Tensor | None:
        """Return the running mean of the batch norm that is the only reader of an output and runs once; else None."""
        readers = self._readers.get(id(output), [])
        mean = readers[0] if len(readers) == 1 else None
        return mean if mean is not None and self._norms[id(mean)] == 1 else None

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
