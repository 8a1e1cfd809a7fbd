"""Which layers are pruned, and the reason code of each that is not."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sparsegpt_core.errors import InputError, ModelError, first_line
from sparsegpt_core.network.functional_calls import Call, record_calls
from sparsegpt_core.network.shift_targets import ShiftTarget, record_readers
from sparsegpt_core.network.weight_layout import PrunableLayer
from sparsegpt_core.patterns import NM, Pattern
from sparsegpt_core.reasons import Reason

__all__ = ["Layer", "select_layers"]


_WIDE, _FEW = 2048, 4  # columns, and how many of them a position must have, before it pays to keep the positions


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of a network; ``reason`` is None where it will be pruned.

    ``calls`` is how often one forward pass multiplies by its weight, and ``plain`` a layer that does what
    those calls do, without what a subclass puts around them; None where there is no such call. ``shift_target`` can
    shift the layer's outputs, and them alone; None where nothing can. ``single``: a sample gives it one vector.
    """

    name: str
    module: nn.Module
    calls: int
    reason: Reason | None
    plain: PrunableLayer | None = None
    shift_target: ShiftTarget | None = None
    single: bool = False

    @property
    def kind(self) -> str:
        """The class of the layer, such as ``Conv2d``."""
        return type(self.module).__name__

    @property
    def pruned(self) -> PrunableLayer:
        """What is pruned in it: ``plain``, whose weight is the network's own parameter.

        Raises:
            ModelError: No call multiplies by the weight as it is stored.
        """
        if self.plain is None:
            raise ModelError(
                f"{self.name}: the weight is computed by a parametrization", "Remove it, or --exclude the layer."
            )
        return self.plain

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight: (K, C, R, S) or (K, C)."""
        weight = self.module.weight
        return tuple(weight.shape) if isinstance(weight, Tensor) else ()

    def few(self, samples: int) -> bool:
        """Tell whether so many samples give the layer far fewer positions than it has columns."""
        columns = math.prod(self.shape[1:])
        return self.single and columns >= _WIDE and _FEW * samples <= columns


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
    order, calls, shift_targets, single = _run(model, modules, sample)
    first = next((name for name in order if isinstance(modules[name], _ConvNd)), None)
    last = next(reversed(order), None)

    def reason(name: str) -> Reason | None:
        structural = _structural_reason(modules[name], pattern)
        if structural or name not in order:
            return structural or Reason.NOT_REACHED
        if _common(calls[name]) is None and not nn.utils.parametrize.is_parametrized(modules[name]):
            return Reason.NOT_CONSTANT
        if _matches(name, include):
            return None
        if _matches(name, exclude):
            return Reason.EXCLUDED
        return Reason.FIRST_LAYER if name == first else Reason.CLASSIFIER if name == last else None

    names = [*order, *(name for name in modules if name not in order)]
    return [
        Layer(
            name,
            modules[name],
            calls=len(calls[name]),
            reason=reason(name),
            plain=_common(calls[name]),
            shift_target=shift_targets.get(name),
            single=name in single,
        )
        for name in names
    ]


def _run(
    model: nn.Module, modules: dict[str, nn.Module], sample: Tensor
) -> tuple[Counter[str], dict[str, list[PrunableLayer]], dict[str, ShiftTarget], set[str]]:
    """Run the network once.

    Returns:
        The modules in the order of their first run, what each call with their weight does, what can absorb
        a shift of their outputs, and those that a sample gives one vector.
    """
    order: Counter[str] = Counter()
    calls: dict[str, list[PrunableLayer]] = {name: [] for name in modules}
    outputs: dict[str, Tensor] = {}
    inputs: dict[str, torch.Size] = {}
    owners: dict[int, list[str]] = {}
    for name, module in modules.items():
        owners.setdefault(id(module._parameters.get("weight")), []).append(name)

    def note(call: Call) -> None:
        for name in owners.get(id(call.arguments["weight"]), []):
            calls[name].append(call.layer())
            inputs[name] = call.arguments["input"].shape

    readers = record_readers()

    def follow(call: Call, output: Tensor) -> None:
        for name in owners.get(id(call.arguments["weight"]), []):
            outputs[name] = output
            readers.follow(output)

    hooks = [m.register_forward_pre_hook(lambda *_, name=name: order.update([name])) for name, m in modules.items()]
    try:
        with torch.inference_mode(), readers, record_calls(note, follow):
            model(sample)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shape = tuple(sample.shape[1:])
        raise ModelError(
            f"the model does not take images of shape {shape}: {first_line(error)}",
            "Check that --model and --data belong together: channels, height and width.",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    shift_targets = {name: _shift_target(name, calls, outputs, readers) for name in outputs}
    found = {
        name: shift_target
        for name, shift_target in shift_targets.items()
        if shift_target and id(shift_target.tensor) in own
    }
    return order, calls, found, {name for name in inputs if _single(calls[name], inputs[name], len(sample))}


def _single(calls: Sequence[PrunableLayer], shape: torch.Size, samples: int) -> bool:
    return len(calls) == 1 and isinstance(calls[0], nn.Linear) and len(shape) == 2 and shape[0] == samples


def _shift_target(
    name: str, calls: dict[str, list[PrunableLayer]], outputs: dict[str, Tensor], readers: record_readers
) -> ShiftTarget | None:
    """What shifts the outputs of a layer that runs once: its bias if it has one, else the mean of its batch norm."""
    if len(calls[name]) != 1:
        return None
    bias = calls[name][0].bias
    if bias is None:
        mean = readers.batch_norm_mean(outputs[name])
        return None if mean is None else ShiftTarget(mean, -1)
    shared = any(bias is call.bias for other, made in calls.items() if other != name for call in made)
    return None if shared else ShiftTarget(bias, 1)


def _common(calls: Sequence[PrunableLayer]) -> PrunableLayer | None:
    """The layer that all calls amount to; None without calls, or where stride, padding or dilation differ."""
    return calls[0] if len({str(call) for call in calls}) == 1 else None


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
