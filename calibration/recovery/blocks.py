"""Which parts of a pruned network are reconstructed one at a time."""

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

_MOST = 4  # pruned layers in a block


@dataclass(frozen=True)
class Block:
    """Modules that run one after the other, each on the one tensor that the one before it gave.

    ``layers`` are the pruned ones in them.
    """

    modules: tuple[str, ...]
    layers: tuple[str, ...]

    @property
    def name(self) -> str:
        """The module, or the first and the last of several."""
        return self.modules[0] if len(self.modules) == 1 else f"{self.modules[0]} … {self.modules[-1]}"

    def of(self, model: nn.Module) -> nn.Sequential:
        """Return the block of a network; its modules are the network's own."""
        return nn.Sequential(*(model.get_submodule(name) for name in self.modules))


def find_blocks(model: nn.Module, pruned: Sequence[str], sample: Tensor) -> list[Block]:
    """Cut a network into blocks of up to four pruned layers, in running order.

    From the whole network down, a module with pruned layers in it is

    - a run of modules, where it is an ``nn.Sequential``: its members, those of a ``Sequential`` in it included, are
      shared out evenly among runs of two to four pruned layers, each with the unpruned ones behind them;
      a member with several pruned layers, such as a residual block, stands by itself, as any other module does:
    - a block, where it holds at most four and is not the whole network;
    - else only the sum of its children.

    A block must run once in a forward pass, take one tensor, give one, and share no parameter with another module.
    What belongs to no such block is in none; a layer alone may be one.

    Args:
        model: The network.
        pruned: Names of its pruned layers.
        sample: A small batch of images (N, C, H, W).

    Raises:
        ModelError: The network does not take the images.
    """
    return _Finder(model, pruned, sample).blocks()


class _Finder:
    def __init__(self, model: nn.Module, pruned: Sequence[str], sample: Tensor) -> None:
        self._model, self._pruned = model, set(pruned)
        self._order = _simple_calls(model, sample)
        self._uses = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)

    def blocks(self) -> list[Block]:
        return sorted(self._walk("", self._model), key=lambda block: self._order[block.modules[0]])

    def _walk(self, name: str, module: nn.Module) -> list[Block]:
        layers = self._layers(name, module)
        if not layers:
            return []
        if self._is_chain(name, module):
            return self._runs(self._members(name, module))
        if name and len(layers) <= _MOST and self._is_simple(name, module):
            return [Block((name,), layers)]
        return [block for child in _children(name, module) for block in self._walk(*child)]

    def _runs(self, members: list[tuple[str, nn.Module]]) -> list[Block]:
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
        pruned = [i for i, member in enumerate(run) if self._layers(*member)]
        count = -(-len(pruned) // _MOST)
        starts = [pruned[number * len(pruned) // count] for number in range(count)]
        found = []
        for start, end in zip(starts, [*starts[1:], len(run)]):
            members = run[start:end]
            layers = tuple(layer for member in members for layer in self._layers(*member))
            found.append(Block(tuple(name for name, _ in members), layers))
        return found

    def _members(self, name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
        """The members of a chain, those of the chains in it in their place."""
        found = []
        for child in _children(name, module):
            found += self._members(*child) if self._is_chain(*child) else [child]
        return found

    def _layers(self, name: str, module: nn.Module) -> tuple[str, ...]:
        return tuple(inner for inner, _ in module.named_modules(prefix=name) if inner in self._pruned)

    def _is_chain(self, name: str, module: nn.Module) -> bool:
        return name in self._order and getattr(type(module), "forward", None) is nn.Sequential.forward

    def _is_simple(self, name: str, module: nn.Module) -> bool:
        return name in self._order and all(self._uses[id(parameter)] == 1 for parameter in module.parameters())


def _children(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{name}.{child}".lstrip("."), inner) for child, inner in module.named_children()]


def _simple_calls(model: nn.Module, sample: Tensor) -> dict[str, int]:
    """The place in running order of every module that runs once, takes one tensor and gives one."""
    calls: list[tuple[str, bool]] = []

    def note(name: str, arguments: Any, keywords: Any, output: Any) -> None:
        single = len(arguments) == 1 and isinstance(arguments[0], Tensor) and not keywords
        calls.append((name, single and isinstance(output, Tensor)))

    hooks = [
        module.register_forward_hook(lambda _, *call, name=name: note(name, *call), with_kwargs=True)
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
    return {name: place for place, (name, simple) in enumerate(calls) if simple and counts[name] == 1}
