"""Which weights a forward pass multiplies by, and whose outputs no other weight multiplies."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from sparsegpt_core.network.functional_calls import LAYER_FUNCTIONS, Call

__all__ = ["record_weight_flow"]

_PRODUCTS = {
    *LAYER_FUNCTIONS,
    torch.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.__rmatmul__,
    torch.mm,
    Tensor.mm,
    torch.bmm,
    torch.addmm,
    torch.einsum,
    F.bilinear,
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
}


class record_weight_flow(TorchFunctionMode):
    """A context that follows tensors from the products with weights to the network's outputs.

    Args:
        model: The network. Its parameters of two and more dimensions are the weights.

    Example:
        >>> import torch
        >>> model = nn.ModuleDict({"body": nn.Linear(4, 4), "boxes": nn.Linear(4, 4), "classes": nn.Linear(4, 2)})
        >>> with record_weight_flow(model) as flow:
        ...     x = model["body"](torch.ones(1, 4))
        ...     outputs = [model["boxes"](x), model["classes"](x)]
        >>> sorted(flow.used), sorted(flow.last(outputs))
        (['body.weight', 'boxes.weight', 'classes.weight'], ['boxes.weight', 'classes.weight'])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.used: dict[str, None] = {}
        """The names of the weights that products used, whole or in part, in running order. A shared weight has several
        names."""
        self.read_elsewhere: set[str] = set()
        """The names of the weights that another operation than a layer's read."""
        parameters = [(name, value) for name, value in model.named_parameters(remove_duplicate=False) if value.ndim > 1]
        self._names: dict[int, list[str]] = {}
        for name, value in parameters:
            self._names.setdefault(id(value), []).append(name)
        # A detector may decode its boxes by a frozen convolution: a formula, not a layer.
        trained = {id(value) for _, value in parameters if value.requires_grad}
        self._ends_flow = {name for weight in trained or self._names for name in self._names[weight]}
        self._parts: MutableMapping[Tensor, list[str]] = WeakTensorKeyDictionary()  # views of weights
        self._sources: MutableMapping[Tensor, set[str]] = (
            WeakTensorKeyDictionary()
        )  # tensor -> weights whose products it depends on
        self._multiplied: set[str] = set()

    def last(self, outputs: Any) -> set[str]:
        """Return the weights that the network's outputs depend on and after which no other weight comes."""
        return self._sources_of(tree_leaves(outputs)) - self._multiplied

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func``, and record the weights that its result depends on."""
        result = func(*args, **(kwargs or {}))
        leaves, results = (
            [each for each in tree_leaves(part) if isinstance(each, Tensor)] for part in ((args, kwargs), result)
        )
        sources = self._sources_of(leaves)
        multiplied = leaves if func in _PRODUCTS else []
        if func in LAYER_FUNCTIONS:
            multiplied = [Call(func, args, kwargs or {}).arguments["weight"]]
            leaves = [leaf for leaf in leaves if leaf is not multiplied[0]]
        self._read(leaves, results)
        own = {name: None for weight in multiplied for name in self._names_of(weight)}
        if own:
            self.used |= own
            if not self._ends_flow.isdisjoint(own):
                self._multiplied |= sources - own.keys()
                sources = set()
            sources |= own.keys()
        written = args[:1] if func is Tensor.__setitem__ else ()
        for leaf in (*results, *written):
            if sources:
                self._sources[leaf] = sources
        return result

    def _read(self, leaves: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Record the weights that an operation reads. A view of a weight stands for it in a product."""
        for leaf in leaves:
            names = self._names_of(leaf)
            if names and not any(each is leaf for each in results):
                self.read_elsewhere.update(names if results else ())
                for each in results:
                    if len(leaves) == 1 and each.untyped_storage().data_ptr() == leaf.untyped_storage().data_ptr():
                        self._parts[each] = names

    def _names_of(self, tensor: Tensor) -> list[str]:
        return self._names.get(id(tensor)) or self._parts.get(tensor, [])

    def _sources_of(self, leaves: Sequence[Any]) -> set[str]:
        found: set[str] = set()
        return found.union(*(self._sources.get(leaf, ()) for leaf in leaves if isinstance(leaf, Tensor)))
