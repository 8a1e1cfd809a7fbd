"""A layer of a network, and the rules that leave a layer dense."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Size, Tensor, nn

from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.network.shift_targets import ShiftTarget
from sparsegpt_core.network.weight_layout import PrunableLayer, input_columns, weight_to_matrix
from sparsegpt_core.patterns import NM, Pattern
from sparsegpt_core.reasons import Reason

__all__ = [
    "Layer",
    "channels_reason",
    "check_globs",
    "chosen_reason",
    "count_vectors",
    "find_sample_axis",
    "layer_name",
    "matches",
    "weight_key",
]

# Keeping the positions themselves is cheaper than the Hessian in layers at least so wide, with so few positions.
_MIN_COLUMNS, _MIN_COLUMNS_PER_POSITION = 2048, 4


@dataclass(frozen=True)
class Layer:
    """A weight that a network multiplies by: that of a convolution or linear layer, or a parameter."""

    name: str
    """The module whose ``weight`` it is, such as ``layer1.0.conv1``, or else the parameter, such as
    ``attention.in_proj_weight``."""
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
    output_scale: Tensor | None = None
    """The size of the factors (K,) by which the batch norm after the layer scales its outputs. None: no batch norm is
    their only reader."""
    vectors_per_sample: int = 0
    """Input vectors of each sample that the weight multiplies; 0 where it is used twice, or samples are not apart."""
    sample_axis: int = 0
    """The axis of a linear layer's input, and output, along which the samples are."""
    weight_name: str = "weight"
    """The weight's attribute of ``module``."""

    @property
    def kind(self) -> str:
        """The class of the layer, such as ``Conv2d``."""
        return type(self.module).__name__

    @property
    def can_be_matched(self) -> bool:
        """Whether it is a grouped convolution whose weight is its own, so that it can follow the layers before it."""
        return self.reason is Reason.GROUPED and self.calls == 1 and self.common_call is not None

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
        """The module's weight. In quantised modules it is a method, not a tensor; None where a graph computes it."""
        return getattr(self.module, self.weight_name, None)

    @property
    def scaled_matrix(self) -> Tensor:
        """The weight (K, d), float32, with each row scaled as the batch norm after the layer scales its output.

        Errors of the rows then count as they do after it, and a batch norm that is folded into the weight changes
        nothing.
        """
        matrix = weight_to_matrix(self.prunable.weight.float())
        return matrix if self.output_scale is None else matrix * self.output_scale[:, None]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight: (K, C, R, S) or (K, C)."""
        return tuple(self.weight.shape) if isinstance(self.weight, Tensor) else ()

    def by_sample(self, x: Tensor, y: Tensor | None, samples: int) -> tuple[Tensor, Tensor | None]:
        """Return an input and an output of the layer, each with one entry for each sample along the first axis.

        Those of a linear layer may be (tokens, N, C), or (N·windows, tokens, C).
        """
        return self._by_sample(x, samples), None if y is None else self._by_sample(y, samples)

    def _by_sample(self, values: Tensor, samples: int) -> Tensor:
        values = values.movedim(self.sample_axis, 0)
        is_windows = isinstance(self.common_call, nn.Linear) and values.ndim > 2 and len(values) % samples == 0
        return values.reshape(samples, -1, *values.shape[1:]) if is_windows and len(values) > samples else values

    def keeps_positions(self, samples: int) -> bool:
        """Return whether statistics of ``samples`` samples keep the positions themselves, not their Hessian (d, d)."""
        columns = math.prod(self.shape[1:])
        positions = samples * self.vectors_per_sample
        return positions > 0 and columns >= max(_MIN_COLUMNS, _MIN_COLUMNS_PER_POSITION * positions)


def layer_name(parameter: str) -> str:
    """Return the name of the layer of a weight: its module's if it is that module's ``weight``, else its own.

    Example:
        >>> layer_name("conv.weight"), layer_name("in_proj_weight")
        ('conv', 'in_proj_weight')
    """
    module, _, attribute = parameter.rpartition(".")
    return module if attribute == "weight" else parameter


def weight_key(layer: str, names: Collection[str]) -> str:
    """Return the name of a layer's weight, which :func:`layer_name` turns into the layer's.

    Args:
        layer: The layer's name.
        names: The names of the network's parameters, or of its state.

    Example:
        >>> weight_key("conv", ["conv.weight"]), weight_key("in_proj_weight", ["in_proj_weight"])
        ('conv.weight', 'in_proj_weight')
    """
    return layer if layer in names else f"{layer}.weight".lstrip(".")


def find_sample_axis(shape: Sequence[int], samples: int) -> int:
    """Return the axis of a linear layer's input along which the samples are: the first one of their number, or else 0.

    Args:
        shape: The input's shape (..., C).
        samples: The number of samples.

    Example:
        >>> find_sample_axis((2, 49, 8), 2), find_sample_axis((49, 2, 8), 2), find_sample_axis((98, 8), 2)
        (0, 1, 0)
    """
    return next((axis for axis, size in enumerate(shape[:-1]) if size == samples), 0)


def count_vectors(layer: PrunableLayer | None, inputs: Sequence[Size], samples: int) -> int:
    """Return how many input vectors (d,) of each sample a layer's weight multiplies; 0 where samples are not apart.

    Args:
        layer: The layer.
        inputs: The shape of its input in each call: (N, C, *spatial), or (..., C) for linear layers.
        samples: N.

    Example:
        >>> count_vectors(nn.Conv2d(4, 8, 3, padding=1), [Size((2, 4, 5, 5))], samples=2)
        25
    """
    if layer is None or len(inputs) != 1 or inputs[0][0] != samples:
        return 0
    return len(input_columns(layer, torch.empty(inputs[0], device="meta"))) // samples


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
    if matches(name, include):
        return None
    if matches(name, exclude):
        return Reason.EXCLUDED
    return Reason.FIRST_LAYER if is_first else Reason.HEAD if is_head else None


def check_globs(globs: Sequence[str], names: Sequence[str]) -> None:
    """Check that every glob matches a layer.

    Raises:
        InputError: A glob matches no layer; names the nearest. Or there is no layer.

    Example:
        >>> check_globs(["layer1.*"], ["layer1.conv", "head"])
    """
    if globs and not names:
        raise InputError("the network has no convolution or linear layer")
    for glob in globs:
        if not any(matches(name, [glob]) for name in names):
            near = difflib.get_close_matches(glob, names, n=3, cutoff=0.0)
            raise InputError(f"'{glob}' matches no layer", f"Layer names look like: {', '.join(near)}.")


def matches(name: str, globs: Sequence[str]) -> bool:
    """Return whether one of the globs matches a layer's name.

    Example:
        >>> matches("layer1.conv", ["layer1.*"]), matches("head", ["layer1.*"])
        (True, False)
    """
    return any(fnmatchcase(name, glob) for glob in globs)
