"""Which layers are pruned, and the reason code of each that is not."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sparsegpt_core.errors import InputError, ModelError, first_line
from sparsegpt_core.layout import PrunableLayer
from sparsegpt_core.patterns import NM, Pattern
from sparsegpt_core.reasons import Reason

__all__ = ["Layer", "select_layers"]


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of a network; ``reason`` is None where it will be pruned.

    ``calls`` is how often one forward pass runs it.
    """

    name: str
    module: nn.Module
    calls: int
    reason: Reason | None

    @property
    def kind(self) -> str:
        """The class of the layer, such as ``Conv2d``."""
        return type(self.module).__name__

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight: (K, C, R, S) or (K, C)."""
        weight = self.module.weight
        return tuple(weight.shape) if isinstance(weight, Tensor) else ()


def select_layers(
    model: nn.Module,
    sample: Tensor,
    pattern: Pattern,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[Layer]:
    """List every convolution and linear layer in the order in which the network runs them.

    The first convolution and the last layer (the classifier) stay dense unless ``include`` names them;
    ``include`` also wins over ``exclude``, so that exclude ``*``, include ``layer4.*`` prunes layer4 alone.

    Args:
        model: The network, on the device of ``sample``.
        sample: A small batch of inputs (N, C, H, W).
        pattern: The pattern; N:M also needs C to be a multiple of M.
        include: Globs of layer names.
        exclude: Globs of layer names.

    Raises:
        ModelError: The model does not take the sample.
        InputError: A glob names no layer.
    """
    modules: dict[str, nn.Module] = {
        name: m for name, m in model.named_modules() if isinstance(m, (_ConvNd, nn.Linear))
    }
    for glob in (*include, *exclude):
        _check_glob(glob, list(modules))
    calls = _run_order(model, modules, sample)
    first = next((name for name in calls if isinstance(modules[name], _ConvNd)), None)
    last = next(reversed(calls), None)

    def reason(name: str) -> Reason | None:
        structural = _structural_reason(modules[name], pattern)
        if structural or name not in calls:
            return structural or Reason.NOT_REACHED
        if _matches(name, include):
            return None
        if _matches(name, exclude):
            return Reason.EXCLUDED
        return Reason.FIRST_LAYER if name == first else Reason.CLASSIFIER if name == last else None

    names = [*calls, *(name for name in modules if name not in calls)]
    return [Layer(name, modules[name], calls[name], reason(name)) for name in names]


def _run_order(model: nn.Module, modules: dict[str, nn.Module], sample: Tensor) -> Counter[str]:
    """Count the calls of each module in one forward pass, in the order of their first call."""
    calls: Counter[str] = Counter()
    hooks = [m.register_forward_pre_hook(lambda *_, name=name: calls.update([name])) for name, m in modules.items()]
    try:
        with torch.inference_mode():
            model(sample)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shape = tuple(sample.shape[1:])
        raise ModelError(
            f"the model does not take images of shape {shape}: {first_line(error)}",
            "Check that --model and --data belong together: channels, height and width.",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _structural_reason(module: nn.Module, pattern: Pattern) -> Reason | None:
    if isinstance(module, _ConvTransposeNd):
        return Reason.TRANSPOSED
    if isinstance(module, _ConvNd) and module.groups > 1:
        return Reason.GROUPED
    channels = module.weight.shape[1] if isinstance(module, PrunableLayer) else 0
    if isinstance(pattern, NM) and channels % pattern.m:
        return Reason.CHANNELS_NOT_MULTIPLE
    return None


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _check_glob(glob: str, names: list[str]) -> None:
    if not any(fnmatchcase(name, glob) for name in names):
        near = difflib.get_close_matches(glob, names, n=3, cutoff=0.0)
        raise InputError(f"'{glob}' names no layer", f"Layer names look like: {', '.join(near) or 'none'}.")
