"""The plan: which layers will be pruned, and why the others stay dense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sparsegpt_core.errors import ModelError, first_line
from sparsegpt_core.execution import device_of
from sparsegpt_core.network.functional_calls import Call, record_calls
from sparsegpt_core.network.inputs import Batch, as_tensors, tensors_of
from sparsegpt_core.network.layers import (
    Layer,
    channels_reason,
    check_globs,
    chosen_reason,
    count_vectors,
    find_sample_axis,
    layer_name,
)
from sparsegpt_core.network.modules import eval_mode
from sparsegpt_core.network.shift_targets import ShiftTarget, record_readers
from sparsegpt_core.network.tracing import GraphNetwork
from sparsegpt_core.network.weight_flow import record_weight_flow
from sparsegpt_core.network.weight_layout import PrunableLayer
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.reasons import Reason
from sparsegpt_core.settings import PruneSettings

__all__ = ["plan_layers", "select_layers"]

_CHANNELS = (1, 3, 4)  # of grey, colour and transparent images


def plan_layers(
    model: nn.Module, sample: Batch, settings: PruneSettings, left_dense: Mapping[str, Reason] | None = None
) -> list[Layer]:
    """List the network's layers in running order. Those without a reason will be pruned.

    Layers that share a weight are pruned together: if one of them stays dense, all do.

    Args:
        model: The network, in eval mode.
        sample: A small batch of inputs (N, C, H, W), on any device, or a tuple of several inputs.
        settings: Pattern and globs.
        left_dense: Layers to leave dense beside those that the settings leave out, with the reason.

    Raises:
        ModelError: There is nothing to prune, or the model does not take the sample.
        InputError: A glob matches no layer.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sparsegpt_core.settings import PruneSettings
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 6), nn.Linear(6, 8), nn.Linear(8, 4)).eval()
        >>> [(layer.name, layer.reason and layer.reason.value) for layer in plan_layers(
        ...     model, torch.ones(2, 8), PruneSettings())]
        [('0', None), ('1', None), ('2', 'CHANNELS_NOT_MULTIPLE'), ('3', 'HEAD')]
    """
    (tensor,) = as_tensors([sample])
    with eval_mode(model):
        tensor, globs = tensor.to(device_of(model)), (settings.include, settings.exclude)
        if isinstance(model, GraphNetwork):
            layers = model.select_layers(tensor, settings.pattern, *globs)
        else:
            layers = select_layers(model, tensor, settings.pattern, *globs)
    layers = [replace(layer, reason=layer.reason or (left_dense or {}).get(layer.name)) for layer in layers]
    reached = [layer for layer in layers if layer.reason is not Reason.NOT_REACHED]
    dense = {id(layer.common_call.weight): layer.reason for layer in reached if layer.common_call and layer.reason}
    layers = [
        replace(layer, reason=layer.reason or dense.get(id(layer.common_call.weight))) if layer.common_call else layer
        for layer in layers
    ]
    if all(layer.reason for layer in layers):
        counts = Counter(layer.reason.value for layer in layers if layer.reason)
        found = ", ".join(f"{count} {code}" for code, count in counts.items())
        raise ModelError(
            f"nothing to prune to {settings.pattern}: {found or 'no convolution or linear layer'}",
            "`include` prunes layers left out as FIRST_LAYER, HEAD or EXCLUDED." if found else "",
        )
    for layer in layers:
        if layer.reason is None:
            _ = layer.prunable  # raises if no call uses the stored weight
    return layers


@dataclass(frozen=True)
class _Place:
    """A weight that may be a layer's."""

    module: nn.Module
    """The module that owns it."""
    attribute: str
    """Its attribute of the module."""
    parameter: str
    """Its name in the network."""

    @property
    def is_layer(self) -> bool:
        """Whether it is the weight of a convolution or linear layer, run or not."""
        return self.attribute == "weight" and isinstance(self.module, (_ConvNd, nn.Linear))

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution's weight, or has the shape of one."""
        return isinstance(self.module, _ConvNd) if self.is_layer else self.module.get_parameter(self.attribute).ndim > 2


@dataclass
class _Pass:
    """What one forward pass shows of the weights, by the names of their layers."""

    calls: dict[str, list[PrunableLayer]]
    """The calls that multiply by a weight, as plain layers."""
    order: dict[str, None] = field(default_factory=dict)
    """The layers in the order of their first run."""
    inputs: dict[str, list[torch.Size]] = field(default_factory=dict)
    """The shape of the input of each call."""
    shift_targets: dict[str, ShiftTarget] = field(default_factory=dict)
    """The tensors that can shift the outputs of one layer alone."""
    output_scales: dict[str, Tensor] = field(default_factory=dict)
    """The factors of batch norms that alone read the outputs of a layer that runs once."""
    used: set[str] = field(default_factory=set)
    """The parameters that products use, whole or in part."""
    read_elsewhere: set[str] = field(default_factory=set)
    """The parameters that other operations than a layer's read."""
    last: set[str] = field(default_factory=set)
    """The parameters after which no other one is multiplied."""


def select_layers(
    model: nn.Module, sample: Tensor, pattern: Pattern, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Layer]:
    """List every convolution and linear layer in running order, with the parameters that functions multiply by.

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
    places = _places(model)
    seen = _run(model, places, sample)
    listed = [name for name, place in places.items() if place.is_layer or place.parameter in seen.used]
    names = [*seen.order, *(name for name in listed if name not in seen.order)]
    check_globs((*include, *exclude), names)
    first = next((name for name in seen.order if places[name].is_convolution), None)
    # The flow is lost in compiled parts and in outputs of unknown classes: then the layer that runs last is the head.
    heads = {name for name in seen.order if places[name].parameter in seen.last}
    if not seen.last:
        heads = {*[*seen.order][-1:]}

    def reason(name: str) -> Reason | None:
        place, common = places[name], _common(seen.calls[name])
        if seen.calls[name] and place.parameter in seen.read_elsewhere:
            return Reason.READ_ELSEWHERE
        structural = _structural_reason(place.module if place.is_layer else common, pattern)
        if structural or name not in seen.order:
            multiplied = place.parameter in seen.used and not seen.calls[name]
            return structural or (Reason.USED_BY_FUNCTION if multiplied else Reason.NOT_REACHED)
        if common is None and not nn.utils.parametrize.is_parametrized(place.module):
            return Reason.NOT_CONSTANT
        return chosen_reason(name, include, exclude, is_first=name == first, is_head=name in heads)

    return [_layer(name, places[name], seen, reason(name), len(sample)) for name in names]


def _places(model: nn.Module) -> dict[str, _Place]:
    """The weights of convolution and linear layers, and then all other parameters of two and more dimensions."""
    places = {
        name: _Place(module, "weight", f"{name}.weight".lstrip("."))
        for name, module in model.named_modules()
        if isinstance(module, (_ConvNd, nn.Linear))
    }
    owned = {id(place.module._parameters.get("weight")) for place in places.values()}
    for parameter, value in model.named_parameters():
        if value.ndim > 1 and id(value) not in owned:
            owner, _, attribute = parameter.rpartition(".")
            places[layer_name(parameter)] = _Place(model.get_submodule(owner), attribute, parameter)
    return places


def _run(model: nn.Module, places: Mapping[str, _Place], sample: Tensor) -> _Pass:
    """Run the network once.

    Raises:
        ModelError: The model does not take the sample.
    """
    seen = _Pass(calls={name: [] for name in places})
    outputs: dict[str, Tensor] = {}
    owners: dict[int, list[str]] = {}
    for name, place in places.items():
        owners.setdefault(id(place.module._parameters.get(place.attribute)), []).append(name)
    readers, flow = record_readers(), record_weight_flow(model)

    def before(call: Call) -> None:
        names = owners.get(id(call.arguments["weight"]), [])
        for name in names:
            seen.calls[name].append(call.layer())
            seen.inputs.setdefault(name, []).append(call.arguments["input"].shape)
        if seen.order.keys().isdisjoint(names):  # no module that owns the weight was called
            seen.order.update(dict.fromkeys(names[:1]))

    def after(call: Call, output: Tensor) -> None:
        for name in owners.get(id(call.arguments["weight"]), []):
            outputs[name] = output
            readers.follow(output)

    hooks = [
        place.module.register_forward_pre_hook(lambda *_, name=name: seen.order.setdefault(name))
        for name, place in places.items()
        if place.is_layer
    ]
    try:
        with torch.inference_mode(), readers, flow, record_calls(before, after):
            seen.last = flow.last(model(sample))
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
    for name, output in outputs.items():
        target = readers.shift_target(name, seen.calls, output)
        if target and id(target.tensor) in own:
            seen.shift_targets[name] = target
        if len(seen.calls[name]) == 1:
            scale = readers.output_scale(seen.calls[name][0], output)
            seen.output_scales |= {} if scale is None else {name: scale}
    seen.used, seen.read_elsewhere = {*flow.used}, flow.read_elsewhere
    return seen


def _layer(name: str, place: _Place, seen: _Pass, reason: Reason | None, samples: int) -> Layer:
    common, inputs = _common(seen.calls[name]), seen.inputs.get(name, [])
    return Layer(
        name,
        place.module,
        calls=len(seen.calls[name]),
        reason=reason,
        common_call=common,
        shift_target=seen.shift_targets.get(name),
        output_scale=seen.output_scales.get(name),
        vectors_per_sample=count_vectors(common, inputs, samples),
        sample_axis=find_sample_axis(inputs[-1], samples) if isinstance(common, nn.Linear) else 0,
        weight_name=place.attribute,
    )


def _shape_hint(shape: tuple[int, ...]) -> str:
    """Say how to fix images of a shape (C, H, W) that a model does not take."""
    if len(shape) == 3 and shape[2] in _CHANNELS and shape[0] not in _CHANNELS:
        return "Images are (N, C, H, W), and these look like (N, H, W, C): use images.transpose(0, 3, 1, 2)."
    return "Check that `model` and `data` belong together: channels, height and width."


def _common(calls: Sequence[PrunableLayer]) -> PrunableLayer | None:
    """The layer that all calls compute; None without calls, or if their stride, padding or dilation differ."""
    return calls[0] if len({str(call) for call in calls}) == 1 else None


def _structural_reason(module: nn.Module | None, pattern: Pattern) -> Reason | None:
    if isinstance(module, _ConvTransposeNd):
        return Reason.TRANSPOSED
    if isinstance(module, _ConvNd) and module.groups > 1:
        return Reason.GROUPED
    return channels_reason(module.weight.shape[1] if isinstance(module, PrunableLayer) else 0, pattern)
