"""The layers of a network, and why a layer is not pruned."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sparsegpt_core.errors import InputError, ModelError, first_line
from sparsegpt_core.network.functional_calls import Call, record_calls
from sparsegpt_core.network.inputs import tensors_of
from sparsegpt_core.network.shift_targets import ShiftTarget, record_readers
from sparsegpt_core.network.weight_flow import record_weight_flow
from sparsegpt_core.network.weight_layout import PrunableLayer
from sparsegpt_core.patterns import NM, Pattern
from sparsegpt_core.reasons import Reason

__all__ = ["Layer", "channels_reason", "check_globs", "chosen_reason", "select_layers"]


# Keeping the positions themselves is cheaper than the Hessian in layers at least so wide, with so few positions.
_CHANNELS = (1, 3, 4)  # of grey, colour and transparent images
_MIN_COLUMNS, _MIN_COLUMNS_PER_POSITION = 2048, 4


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of a network, or a weight that a function uses."""

    name: str
    """Name of the module in the network, such as ``layer1.0.conv1``; of other weights, the parameter's name."""
    module: nn.Module
    """The network's own module, which owns the weight."""
    calls: int
    """Calls that multiply by the weight in one forward pass."""
    reason: Reason | None
    """Why the layer stays dense. None: it will be pruned."""
    common_call: PrunableLayer | None = None
    """A plain layer that computes the same as every call, without the code of a subclass around it. None: no call uses
    the stored weight, or the calls differ."""
    shift_target: ShiftTarget | None = None
    """The tensor that can shift the outputs of this layer alone. None: there is no such tensor."""
    one_vector_per_sample: bool = False
    """Whether the layer is linear and reads one vector of each sample."""
    weight_name: str = "weight"
    """The weight's attribute of ``module``."""

    @property
    def kind(self) -> str:
        """The class of the layer, such as ``Conv2d``."""
        return type(self.module).__name__

    @property
    def prunable(self) -> PrunableLayer:
        """The plain layer to prune, which computes the same as every call. Its weight is the network's own parameter.

        Raises:
            ModelError: No call multiplies by the weight as it is stored.
        """
        if self.common_call is None:
            raise ModelError(
                f"{self.name}: the weight is computed by a parametrization",
                'Call torch.nn.utils.parametrize.remove_parametrizations(module, "weight"), or `exclude` the layer.',
            )
        return self.common_call

    @property
    def weight(self) -> Any:
        """The module's weight. In quantised modules it is a method, not a tensor."""
        return getattr(self.module, self.weight_name)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight: (K, C, R, S) or (K, C)."""
        return tuple(self.weight.shape) if isinstance(self.weight, Tensor) else ()

    def keeps_positions(self, samples: int) -> bool:
        """Return whether statistics of ``samples`` samples keep the positions themselves, not their Hessian (d, d)."""
        columns = math.prod(self.shape[1:])
        enough = columns >= max(_MIN_COLUMNS, _MIN_COLUMNS_PER_POSITION * samples)
        return self.one_vector_per_sample and enough


def select_layers(
    model: nn.Module,
    sample: Tensor,
    pattern: Pattern,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[Layer]:
    """List every convolution and linear layer in running order, and then the weights that only functions use.

    The first convolution and the heads stay dense unless ``include`` matches them. A head is a layer after which no
    other layer comes: a classifier, or each output layer of a detector. ``include`` overrides ``exclude``: excluding
    ``*`` and including ``layer4.*`` prunes layer4 alone.

    Args:
        model: The network, on the device of ``sample``.
        sample: A small batch of inputs (N, C, H, W).
        pattern: The pattern. N:M needs C to be a multiple of M.
        include: Globs of layer names.
        exclude: Globs of layer names.

    Raises:
        ModelError: The model does not take the sample.
        InputError: A glob matches no layer.
    """
    modules: dict[str, nn.Module] = {
        name: m for name, m in model.named_modules() if isinstance(m, (_ConvNd, nn.Linear))
    }
    check_globs((*include, *exclude), list(modules))
    order, calls, shift_targets, one_vector, used, last = _run(model, modules, sample)
    first = next((name for name in order if isinstance(modules[name], _ConvNd)), None)
    # The flow is lost in compiled parts and in outputs of unknown classes: then the layer that runs last is the head.
    heads = {name for name in order if f"{name}.weight" in last} if last else {*[*order][-1:]}

    def reason(name: str) -> Reason | None:
        structural = _structural_reason(modules[name], pattern)
        if structural or name not in order:
            return structural or (Reason.USED_BY_FUNCTION if f"{name}.weight" in used else Reason.NOT_REACHED)
        if _common(calls[name]) is None and not nn.utils.parametrize.is_parametrized(modules[name]):
            return Reason.NOT_CONSTANT
        return chosen_reason(name, include, exclude, is_first=name == first, is_head=name in heads)

    names = [*order, *(name for name in modules if name not in order)]
    layers = [
        Layer(
            name,
            modules[name],
            calls=len(calls[name]),
            reason=reason(name),
            common_call=_common(calls[name]),
            shift_target=shift_targets.get(name),
            one_vector_per_sample=name in one_vector,
        )
        for name in names
    ]
    owned = {id(module._parameters.get("weight")) for module in modules.values()}
    functional = [name for name in used if id(model.get_parameter(name)) not in owned]
    return [*layers, *(_functional_layer(model, name) for name in functional)]


def _functional_layer(model: nn.Module, parameter: str) -> Layer:
    """A weight that is a parameter of another module, such as ``in_proj_weight`` of nn.MultiheadAttention."""
    owner, _, attribute = parameter.rpartition(".")
    module = model.get_submodule(owner)
    return Layer(parameter, module, calls=0, reason=Reason.USED_BY_FUNCTION, weight_name=attribute)


def _run(
    model: nn.Module, modules: dict[str, nn.Module], sample: Tensor
) -> tuple[Counter[str], dict[str, list[PrunableLayer]], dict[str, ShiftTarget], set[str], dict[str, None], set[str]]:
    """Run the network once.

    Returns:
        The names of the modules in the order of their first run; for each name the calls with its weight as plain
        layers; the tensors that can shift its outputs; the names of layers that read one vector of each sample; the
        names of the weights that are used; and of those after which no other comes.
    """
    order: Counter[str] = Counter()
    calls: dict[str, list[PrunableLayer]] = {name: [] for name in modules}
    outputs: dict[str, Tensor] = {}
    inputs: dict[str, torch.Size] = {}
    owners: dict[int, list[str]] = {}
    for name, module in modules.items():
        owners.setdefault(id(module._parameters.get("weight")), []).append(name)

    def before(call: Call) -> None:
        for name in owners.get(id(call.arguments["weight"]), []):
            calls[name].append(call.layer())
            inputs[name] = call.arguments["input"].shape

    readers, flow = record_readers(), record_weight_flow(model)

    def after(call: Call, output: Tensor) -> None:
        for name in owners.get(id(call.arguments["weight"]), []):
            outputs[name] = output
            readers.follow(output)

    hooks = [m.register_forward_pre_hook(lambda *_, name=name: order.update([name])) for name, m in modules.items()]
    try:
        with torch.inference_mode(), readers, flow, record_calls(before, after):
            last = flow.last(model(sample))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shapes = [tuple(each.shape[1:]) for each in tensors_of(sample)]
        what = "images of shape" if len(shapes) == 1 else "inputs of shapes"
        raise ModelError(
            f"the model does not take {what} {', '.join(map(str, shapes))}: {first_line(error)}", _shape_hint(shapes[0])
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
    one_vector = {name for name in inputs if _one_vector(calls[name], inputs[name], len(sample))}
    return order, calls, found, one_vector, flow.used, last


def _one_vector(calls: Sequence[PrunableLayer], shape: torch.Size, samples: int) -> bool:
    return len(calls) == 1 and isinstance(calls[0], nn.Linear) and len(shape) == 2 and shape[0] == samples


def _shift_target(
    name: str, calls: dict[str, list[PrunableLayer]], outputs: dict[str, Tensor], readers: record_readers
) -> ShiftTarget | None:
    """The tensor that shifts the outputs of a layer that runs once: its bias, or else the mean of its batch norm."""
    if len(calls[name]) != 1:
        return None
    bias = calls[name][0].bias
    if bias is None:
        mean = readers.batch_norm_mean(outputs[name])
        return None if mean is None else ShiftTarget(mean, -1)
    shared = any(bias is call.bias for other, made in calls.items() if other != name for call in made)
    return None if shared else ShiftTarget(bias, 1)


def _shape_hint(shape: tuple[int, ...]) -> str:
    """Say how to fix images of a shape (C, H, W) that a model does not take."""
    if len(shape) == 3 and shape[2] in _CHANNELS and shape[0] not in _CHANNELS:
        return "Images are (N, C, H, W), and these look like (N, H, W, C): use images.transpose(0, 3, 1, 2)."
    return "Check that `model` and `data` belong together: channels, height and width."


def _common(calls: Sequence[PrunableLayer]) -> PrunableLayer | None:
    """The layer that all calls compute; None without calls, or if their stride, padding or dilation differ."""
    return calls[0] if len({str(call) for call in calls}) == 1 else None


def _structural_reason(module: nn.Module, pattern: Pattern) -> Reason | None:
    if isinstance(module, _ConvTransposeNd):
        return Reason.TRANSPOSED
    if isinstance(module, _ConvNd) and module.groups > 1:
        return Reason.GROUPED
    return channels_reason(module.weight.shape[1] if isinstance(module, PrunableLayer) else 0, pattern)


def channels_reason(channels: int, pattern: Pattern) -> Reason | None:
    """Return why a layer with so many input channels cannot have the pattern; None if it can.

    Example:
        >>> channels_reason(6, NM(2, 4)).value, channels_reason(8, NM(2, 4))
        ('CHANNELS_NOT_MULTIPLE', None)
    """
    return Reason.CHANNELS_NOT_MULTIPLE if isinstance(pattern, NM) and channels % pattern.m else None


def chosen_reason(
    name: str, include: Sequence[str], exclude: Sequence[str], *, is_first: bool, is_head: bool
) -> Reason | None:
    """Return why a layer that could be pruned stays dense by choice; None if it will be pruned.

    Args:
        name: The layer's name.
        include: Globs of layer names; they override all other choices.
        exclude: Globs of layer names.
        is_first: Whether it is the first convolution.
        is_head: Whether no other layer comes after it.

    Example:
        >>> chosen_reason("head", ["head"], ["*"], is_first=False, is_head=True)
        >>> chosen_reason("head", [], [], is_first=False, is_head=True).value
        'HEAD'
    """
    if _matches(name, include):
        return None
    if _matches(name, exclude):
        return Reason.EXCLUDED
    return Reason.FIRST_LAYER if is_first else Reason.HEAD if is_head else None


def check_globs(globs: Sequence[str], names: Sequence[str]) -> None:
    """Check that every glob matches a layer.

    Raises:
        InputError: A glob matches no layer; names the nearest.

    Example:
        >>> check_globs(["layer1.*"], ["layer1.conv", "head"])
    """
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            near = difflib.get_close_matches(glob, names, n=3, cutoff=0.0)
            raise InputError(f"'{glob}' matches no layer", f"Layer names look like: {', '.join(near) or 'none'}.")


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
