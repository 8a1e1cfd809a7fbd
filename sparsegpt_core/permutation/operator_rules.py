"""How each operator carries the order of channels from its inputs to its output.

A rule takes the channel map, a node, and the first activation that the node reads. It attaches the constants that
follow the order, and returns where the output has its channels, or the reason why the order must stay.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

from torch.fx import Node

from sparsegpt_core.permutation.channel_map import ChannelMap, Space, View, arguments_of, has_shape, name_of, shape_of

__all__ = ["RULES", "Rule"]

Rule = Callable[[ChannelMap, Node, Node], "View | str"]


def _multiply(channel_map: ChannelMap, node: Node, read: Node) -> View | str:
    """A convolution or linear layer reads one space and starts another. A depthwise convolution passes it on."""
    arguments = arguments_of(node)
    weight, bias, groups = (arguments.get(key) for key in ("weight", "bias", "groups"))
    if read is not arguments["input"] or weight not in channel_map.constants:
        return "a layer's weight is computed"
    view = channel_map.along(read, len(shape_of(read)) - 1 if name_of(node) == "linear" else 1)
    transposed = arguments.get("transposed") or "transpose" in name_of(node)
    if groups in (None, 1):
        channel_map.attach(weight, 0 if transposed else 1, view, reads=not transposed)
        rows = 1 if transposed else 0
        out = View(Space(shape_of(weight)[rows]), view.axis)
    elif groups == shape_of(read)[1] and not transposed:
        rows, out = 0, replace(view, block=view.block * shape_of(weight)[0] // groups)
    else:
        return "a grouped convolution"
    channel_map.attach(weight, rows, out)
    if bias is not None:
        channel_map.attach(bias, 0, out)
    return out


def _elementwise(channel_map: ChannelMap, node: Node, read: Node) -> View | str:
    """Operands are broadcast. All operands that have the channels share their order."""
    rank = len(shape_of(node))
    operands = [operand for operand in node.all_input_nodes if has_shape(operand)]
    views = {o: replace(v, axis=v.axis + rank - len(shape_of(o))) for o in operands if (v := channel_map.views.get(o))}
    main = next((view for view in views.values() if view.space.size > 1), views[read])
    for operand in operands:
        axis = main.axis - rank + len(shape_of(operand))
        spread = axis < 0 or shape_of(operand)[axis] == 1
        view = views.get(operand)
        if view is None:
            if not spread and main.space.size == 1:
                return f"{name_of(node)} with a constant's channels"
            if not spread:
                channel_map.attach(operand, axis, main)
        elif view.axis == main.axis and view.block == main.block:
            if view.space.size == main.space.size:
                main.space.merge(view.space)
        elif view.space.size > 1 or not spread:
            return f"{name_of(node)} of channels on different axes"
    return main


def _channelwise(channel_map: ChannelMap, node: Node, read: Node) -> View | str:
    """Norms and PReLU have vectors along the channels. Group norm must have one group, or one group per channel."""
    arguments, view = arguments_of(node), channel_map.along(read, 1)
    groups = arguments.get("num_groups", 1)
    if groups != 1 and groups % view.space.size:
        return f"{name_of(node)} of several channels"
    for vector in (arguments.get(key) for key in ("weight", "bias", "running_mean", "running_var")):
        if vector is not None and shape_of(vector)[0] > 1:
            channel_map.attach(vector, 0, view)
    return view


def _layer_norm(channel_map: ChannelMap, node: Node, read: Node) -> View | str:
    """Over other axes the channels pass. Over the channels alone too: a mean does not depend on their order."""
    arguments = arguments_of(node)
    view, axes = channel_map.views[read], len(arguments["normalized_shape"])
    last = len(shape_of(node)) - 1
    if view.axis <= last - axes:
        return view
    if axes > 1:
        return "layer_norm over several axes"
    for vector in (arguments["weight"], arguments["bias"]):
        if vector is not None:
            channel_map.attach(vector, 0, view)
    return view


def _spatial(channel_map: ChannelMap, node: Node, read: Node) -> View | str:
    """Pooling, resizing and padding change the last one to three axes."""
    view, digits = channel_map.views[read], re.search(r"(\d)d", name_of(node))
    if digits:
        touched = view.axis >= len(shape_of(node)) - int(digits[1])
    else:
        from_end = 2 * (len(shape_of(node)) - 1 - view.axis)
        touched = any(arguments_of(node)["pad"][from_end : from_end + 2])
    return f"{name_of(node)} of channels" if touched else view


def _reduce(channel_map: ChannelMap, node: Node, read: Node) -> View | str:
    """Reductions over other axes pass the channels."""
    arguments = arguments_of(node)
    view, rank = channel_map.views[read], len(shape_of(read))
    dims = arguments.get("dim")
    axes = {d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank))}
    if view.axis in axes:
        return f"{name_of(node)} over channels"
    kept = arguments.get("keepdim", False)
    return view if kept else replace(view, axis=view.axis - sum(axis < view.axis for axis in axes))


def _reshape(channel_map: ChannelMap, node: Node, read: Node) -> View | str:
    """The channels stay one axis, or become the slowest part of one."""
    before, after, view = shape_of(read), shape_of(node), channel_map.views[read]
    start = math.prod(before[: view.axis])
    axis = max((i for i in range(len(after)) if math.prod(after[:i]) == start), default=-1)
    if axis < 0 or after[axis] % view.space.size:
        return f"{name_of(node)} splits or joins channels"
    return replace(view, axis=axis, block=after[axis] // view.space.size)


def _permute(channel_map: ChannelMap, node: Node, read: Node) -> View | str:
    """A permutation of axes moves the channels."""
    arguments, view, rank = arguments_of(node), channel_map.views[read], len(shape_of(node))
    order = list(range(rank))
    if "dims" in arguments:
        order = [d % rank for d in arguments["dims"]]
    else:
        first, second = arguments["dim0"], arguments["dim1"]
        order[first], order[second] = order[second], order[first]
    return replace(view, axis=order.index(view.axis))


def _part(channel_map: ChannelMap, node: Node, read: Node) -> View | str:
    """A slice along another axis passes the channels."""
    view, dim = channel_map.views[read], arguments_of(node)["dim"] % len(shape_of(read))
    if dim == view.axis and shape_of(node) != shape_of(read):
        return f"{name_of(node)} of channels"
    return replace(view, axis=view.axis - (len(shape_of(node)) < len(shape_of(read)) and dim < view.axis))


def _item(channel_map: ChannelMap, node: Node, read: Node) -> View | str:
    """One of several outputs passes the channels: pooled values, their indices, or normalised values."""
    view = channel_map.views[read]
    return view if shape_of(read) == shape_of(node) else view.space.root().frozen or "one of several outputs"


def _rules(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_rules(_multiply, "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution"),
    **_rules(
        _elementwise,
        "relu relu6 hardtanh hardswish silu gelu sigmoid hardsigmoid mish elu selu celu leaky_relu softplus clamp "
        "clamp_min clamp_max tanh dropout feature_dropout clone to _to_copy contiguous detach alias expand expand_as "
        "softmax log_softmax add sub rsub mul div maximum minimum pow square sqrt rsqrt exp log abs neg reciprocal "
        "erf log_sigmoid softsign hardshrink threshold",
    ),
    **_rules(
        _channelwise,
        "batch_norm _native_batch_norm_legit_no_training native_batch_norm instance_norm group_norm prelu",
    ),
    **_rules(_layer_norm, "layer_norm"),
    **_rules(
        _spatial,
        "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d "
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
        "adaptive_max_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d "
        "upsample_bicubic2d upsample_trilinear3d reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d pad constant_pad_nd",
    ),
    **_rules(_reduce, "mean sum amax amin var std"),
    **_rules(_reshape, "view reshape flatten unflatten _unsafe_view squeeze unsqueeze"),
    **_rules(_permute, "permute transpose"),
    **_rules(_part, "slice select narrow"),
    **_rules(_item, "getitem"),
}
