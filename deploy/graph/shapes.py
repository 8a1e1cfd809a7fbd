"""Makes optimisation profiles: the min, opt and max shape of each input."""

from __future__ import annotations

__all__ = ["DEFAULT_BATCHES", "ShapeRange", "Shapes", "parse_shapes", "resolve_shapes"]

import re
from collections.abc import Mapping
from typing import Dict, Optional, Tuple, Union

from deploy.graph.onnx_graph import InputShape
from sparsegpt_core.errors import InputError

ShapeRange = Tuple[Tuple[int, ...], Tuple[int, ...], Tuple[int, ...]]
"""The min, opt and max shape of one input."""

Shapes = Union[Tuple[int, int, int], Mapping[str, ShapeRange]]
"""The min, opt and max batch of all inputs, or whole shapes by input name."""

DEFAULT_BATCHES = (1, 8, 32)
"""The min, opt and max batch where none is given and the batch is dynamic."""

_HINT = "Use MIN/OPT/MAX batches such as 1/8/32, or NAME:1x3x224x224/8x3x224x224/32x3x224x224."


def parse_shapes(text: str) -> Shapes:
    """Read batches such as ``1/8/32`` or whole shapes such as ``input:1x3x32x32/8x3x32x32/32x3x32x32``.

    Whole shapes of several inputs are separated by commas.

    Raises:
        InputError: The text is neither, or min ≤ opt ≤ max does not hold.

    Example:
        >>> parse_shapes("1/8/32")
        (1, 8, 32)
        >>> parse_shapes("x:1x3/8x3/32x3")
        {'x': ((1, 3), (8, 3), (32, 3))}
    """
    if ":" not in text:
        (low,), (best,), (high,) = _parse_range(text, rank=1)
        return low, best, high
    shapes: Dict[str, ShapeRange] = {}
    for part in text.split(","):
        name, _, dims = part.strip().rpartition(":")
        if not name or name in shapes:
            raise InputError(f"'{text}' needs one name before each shape", _HINT)
        shapes[name] = _parse_range(dims)
    return shapes


def resolve_shapes(inputs: Mapping[str, InputShape], shapes: Optional[Shapes]) -> Dict[str, ShapeRange]:
    """Return the min, opt and max shape of each input.

    Args:
        inputs: Shapes by input name; None marks a dynamic dimension. The first dimension is the batch.
        shapes: The requested batches or shapes; None for ``DEFAULT_BATCHES`` where the batch is dynamic.

    Raises:
        InputError: The request does not fit the graph, or leaves a dynamic dimension open.

    Example:
        >>> resolve_shapes({"x": (None, 3)}, (1, 4, 8))
        {'x': ((1, 3), (4, 3), (8, 3))}
    """
    named = shapes if isinstance(shapes, Mapping) else {}
    unknown = sorted(set(named) - set(inputs))
    if unknown:
        raise InputError(f"the graph has no input '{unknown[0]}'", f"Use one of its inputs: {', '.join(inputs)}.")
    if isinstance(shapes, tuple) and not any(None in dims[:1] for dims in inputs.values()):
        fixed = "; ".join(f"{name} {_show(dims)}" for name, dims in inputs.items())
        raise InputError(f"the graph's batch is fixed: {fixed}", "Leave out `shapes`, or export with a dynamic batch.")
    batches = shapes if isinstance(shapes, tuple) else DEFAULT_BATCHES
    return {
        name: _checked(name, dims, named[name]) if name in named else _with_batches(name, dims, batches)
        for name, dims in inputs.items()
    }


def _parse_range(text: str, rank: Optional[int] = None) -> ShapeRange:
    parts = text.strip().split("/")
    if len(parts) != 3 or not all(re.fullmatch(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})*", part) for part in parts):
        raise InputError(f"cannot read the shapes '{text}'", _HINT)
    low, best, high = (tuple(int(size) for size in part.split("x")) for part in parts)
    if not len(low) == len(best) == len(high) == (rank or len(low)):
        raise InputError(f"the shapes '{text}' differ in their number of dimensions", _HINT)
    if any(not a <= b <= c for a, b, c in zip(low, best, high)):
        raise InputError(f"the shapes '{text}' are not in the order min ≤ opt ≤ max", _HINT)
    return low, best, high


def _with_batches(name: str, dims: InputShape, batches: Tuple[int, int, int]) -> ShapeRange:
    if None in dims[1:]:
        examples = "/".join("x".join(str(size or 224) for size in (batch, *dims[1:])) for batch in batches)
        raise InputError(
            f"input '{name}' {_show(dims)} has dynamic dimensions besides the batch",
            f"Give them, for example `shapes={name}:{examples}`.",
        )
    low, best, high = (tuple(batch if size is None else size for size in dims) for batch in batches)
    return low, best, high


def _checked(name: str, dims: InputShape, wanted: ShapeRange) -> ShapeRange:
    for shape in wanted:
        if len(shape) != len(dims) or any(size not in (None, given) for size, given in zip(dims, shape)):
            raise InputError(f"shape {_show(shape)} does not fit input '{name}' {_show(dims)}", _HINT)
    return wanted


def _show(dims: InputShape) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in dims)})"
