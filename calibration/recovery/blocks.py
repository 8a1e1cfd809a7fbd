"""Divides a pruned network into the blocks that are reconstructed one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsegpt_core.errors import ModelError, first_line
from sparsegpt_core.execution import device_of
from sparsegpt_core.network import eval_mode

__all__ = ["Block", "find_blocks"]

_MAX_PRUNED_LAYERS = 4  # in one block


@dataclass(frozen=True)
class Block:
    """Modules that run in sequence: each one takes the output tensor of the one before it."""

    modules: tuple[str, ...]
    """Names of the modules, in running order."""
    layers: tuple[str, ...]
    """Names of the pruned layers in them."""

    @property
    def name(self) -> str:
        """The name of the module, or of the first and last one."""
        return self.modules[0] if len(self.modules) == 1 else f"{self.modules[0]} … {self.modules[-1]}"

    def of(self, model: nn.Module) -> nn.Sequential:
        """Return the block as a module. It shares its parameters with the network."""
        return nn.Sequential(*(model.get_submodule(name) for name in self.modules))


def find_blocks(model: nn.Module, pruned: Sequence[str], sample: Tensor) -> list[Block]:
    """Divide a network into blocks of up to four pruned layers, in running order.

    The search starts at the whole network. A module that contains pruned layers is divided as follows:

    - An ``nn.Sequential`` is divided into runs of its members, where a nested ``Sequential`` counts as its members.
      The pruned layers are distributed evenly, two to four to a run, and a run includes the unpruned modules after
      its layers. A member with several pruned layers, such as a residual block, is not part of a run and is divided
      by itself.
    - Another module is one block if it has at most four pruned layers and is not the whole network.
    - Otherwise its children are divided.

    A block runs once in a forward pass, takes one tensor, returns one tensor, and shares no parameter with another
    module. A single layer can be a block. Pruned layers for which this is not possible are in no block.

    Args:
        model: The network.
        pruned: Names of its pruned layers.
        sample: A small batch of images (N, C, H, W).

    Raises:
        ModelError: The network fails on the images.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        >>> [block.modules for block in find_blocks(model, ["0", "2"], torch.zeros(1, 8))]
        [('0', '1', '2', '3', '4')]
    """
    return _Finder(model, pruned, sample).blocks()


class _Finder:
    """Walks down a network and collects its blocks."""

    def __init__(self, model: nn.Module, pruned: Sequence[str], sample: Tensor) -> None:
        self._model, self._pruned = model, set(pruned)
        self._order = _simple_calls(model, sample)
        # How many modules have each parameter.
        self._uses = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)

    def blocks(self) -> list[Block]:
        return sorted(self._walk("", self._model), key=lambda block: self._order[block.modules[0]])

    def _walk(self, name: str, module: nn.Module) -> list[Block]:
        layers = self._layers(name, module)
        if not layers:
            return []
        if self._is_sequential(name, module):
            return self._runs(self._members(name, module))
        if name and len(layers) <= _MAX_PRUNED_LAYERS and self._is_simple(name, module):
            return [Block((name,), layers)]
        return [block for child in _children(name, module) for block in self._walk(*child)]

    def _runs(self, members: list[tuple[str, nn.Module]]) -> list[Block]:
        """The blocks of a sequence: its simple members in runs, and the others by themselves."""
        found: list[Block] = []
        run: list[tuple[str, nn.Module]] = []
        for name, module in members:
            if len(self._layers(name, module)) <= 1 and self._is_simple(name, module):
                run.append((name, module))
            else:
                found += [*self._share_out(run), *self._walk(name, module)]
                run = []
        return found + self._share_out(run)

    def _share_out(self, run: list[tuple[str, nn.Module]]) -> list[Block]:
        """Distribute the pruned layers of a run evenly among as few blocks as possible."""
        pruned = [i for i, member in enumerate(run) if self._layers(*member)]
        count = -(-len(pruned) // _MAX_PRUNED_LAYERS)
        # A block starts at a pruned layer and ends before the next block. Members before the first one are in none.
        starts = [pruned[number * len(pruned) // count] for number in range(count)]
        found = []
        for start, end in zip(starts, [*starts[1:], len(run)]):
            members = run[start:end]
            layers = tuple(layer for member in members for layer in self._layers(*member))
            found.append(Block(tuple(name for name, _ in members), layers))
        return found

    def _members(self, name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
        """The members of a ``Sequential``, with nested ones replaced by their members."""
        found = []
        for child in _children(name, module):
            found += self._members(*child) if self._is_sequential(*child) else [child]
        return found

    def _layers(self, name: str, module: nn.Module) -> tuple[str, ...]:
        """The pruned layers in a module."""
        named = (*module.named_modules(prefix=name), *module.named_parameters(prefix=name))
        return tuple(inner for inner, _ in named if inner in self._pruned)

    def _is_sequential(self, name: str, module: nn.Module) -> bool:
        """Whether a module runs once and has the forward method of ``nn.Sequential``."""
        return name in self._order and getattr(type(module), "forward", None) is nn.Sequential.forward

    def _is_simple(self, name: str, module: nn.Module) -> bool:
        """Whether a module runs once, on one tensor, and shares no parameter."""
        return name in self._order and all(self._uses[id(parameter)] == 1 for parameter in module.parameters())


def _children(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{name}.{child}".lstrip("."), inner) for child, inner in module.named_children()]


def _simple_calls(model: nn.Module, sample: Tensor) -> dict[str, int]:
    """The position in running order of each module that runs once, takes one tensor and returns one."""
    calls: list[tuple[str, bool]] = []

    def record(name: str, arguments: Any, keywords: Any, output: Any) -> None:
        takes_one = len(arguments) == 1 and isinstance(arguments[0], Tensor) and not keywords
        calls.append((name, takes_one and isinstance(output, Tensor)))

    hooks = [
        module.register_forward_hook(lambda _, *call, name=name: record(name, *call), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    try:
        with eval_mode(model), torch.no_grad():
            model(sample.to(device_of(model)))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ModelError(
            f"the model fails on images {tuple(sample.shape)}: {first_line(error)}",
            "Use data of the model's image shape.",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    counts = Counter(name for name, _ in calls)
    return {name: position for position, (name, simple) in enumerate(calls) if simple and counts[name] == 1}
