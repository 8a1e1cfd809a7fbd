"""Where a layer's outputs can be shifted: its own bias, or the batch norm that alone reads them.

Pruning moves the mean of a layer's outputs. Whatever adds a constant to them anyway can take the whole of that
back, and the weights are then free to care for the rest.
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
    """A parameter or buffer (K,) to which ``sign`` times a shift of the layer's outputs is added."""

    tensor: Tensor
    sign: int


class record_readers(TorchFunctionMode):
    """Within this context note which operations read the outputs given to :meth:`follow`."""

    def __init__(self) -> None:
        super().__init__()
        self._outputs: dict[int, Tensor] = {}  # kept alive, so that no other tensor gets their identity
        self._readers: dict[int, list[Tensor | None]] = {}
        self._norms: Counter[int] = Counter()

    def follow(self, output: Tensor) -> None:
        """Note from now on who reads this tensor."""
        self._outputs[id(output)] = output

    def batch_norm_mean(self, output: Tensor) -> Tensor | None:
        """The running mean of the batch norm that alone reads a followed output and is used once; or None."""
        readers = self._readers.get(id(output), [])
        mean = readers[0] if len(readers) == 1 else None
        return mean if mean is not None and self._norms[id(mean)] == 1 else None

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func``, and note it where it makes a tensor of one that is followed."""
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
