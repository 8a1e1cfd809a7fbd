"""The functional convolution and linear calls of a forward pass.

A module's attributes may mislead: a subclass can pad its input itself or compute its weight. The functional call has
the actual input, weight, stride, padding and dilation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sparsegpt_core.network.weight_layout import PrunableLayer

__all__ = ["LAYER_FUNCTIONS", "Call", "record_calls"]

_CONVOLUTIONS: dict[Any, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    torch.conv1d: nn.Conv1d,
    torch.conv2d: nn.Conv2d,
    torch.conv3d: nn.Conv3d,
}
LAYER_FUNCTIONS = frozenset({F.linear, *_CONVOLUTIONS})
"""The functions that multiply their input by a weight as a layer does."""

_PARAMETERS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
# Attention hands itself over to a mode as a whole. This copy of its code does not, so that the mode sees what it calls.
_ATTENTION = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


class Call:
    """One call of a convolution or linear function, with its ``arguments`` by name."""

    def __init__(self, function: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        self._function = function
        self.arguments = _DEFAULTS | dict(zip(_PARAMETERS, arguments, strict=False)) | dict(keywords)

    def layer(self) -> PrunableLayer:
        """Return a plain layer, with the weight and bias of the call, that computes the same."""
        weight, bias = self.arguments["weight"], self.arguments["bias"]
        if self._function is F.linear:
            plain: PrunableLayer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        else:
            names = ("stride", "padding", "dilation", "groups")
            stride, padding, dilation, groups = (self.arguments[name] for name in names)
            plain = _CONVOLUTIONS[self._function](
                weight.shape[1] * groups,
                weight.shape[0],
                tuple(weight.shape[2:]),
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
                bias=False,
                device="meta",
            )
        plain.weight = weight
        plain.bias = bias if bias is None or isinstance(bias, nn.Parameter) else nn.Parameter(bias, False)
        return plain


class record_calls(TorchFunctionMode):
    """A context in which functions are called before and after every convolution and linear call, also in attention.

    Args:
        before: Called with the call. An exception from it ends the forward pass.
        after: Called with the call and its output.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> seen = []
        >>> with record_calls(lambda call: seen.append(tuple(call.arguments["weight"].shape))):
        ...     _ = nn.Linear(4, 2)(torch.ones(1, 4))
        >>> seen
        [(2, 4)]
    """

    def __init__(
        self, before: Callable[[Call], None] | None = None, after: Callable[[Call, Tensor], None] | None = None
    ) -> None:
        super().__init__()
        self._before, self._after = before, after

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func``, and report it if it is a convolution or linear function."""
        if func is F.multi_head_attention_forward:
            with self:
                return _ATTENTION(*args, **(kwargs or {}))
        if func not in LAYER_FUNCTIONS:
            return func(*args, **(kwargs or {}))
        call = Call(func, args, kwargs or {})
        if self._before:
            self._before(call)
        output = func(*args, **(kwargs or {}))
        if self._after:
            self._after(call, output)
        return output
