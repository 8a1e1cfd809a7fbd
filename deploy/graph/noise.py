"""Makes inputs for a network whose data is not known."""

from __future__ import annotations

__all__ = ["random_inputs"]

from collections.abc import Mapping
from typing import Any, Tuple

import numpy as np

from sparsegpt_core.named_inputs import Arrays, NamedInputs


def random_inputs(shapes: Mapping[str, Tuple[int, ...]], types: Mapping[str, np.dtype[Any]], seed: int = 0) -> Arrays:
    """Return normal noise for floating-point inputs, and zeros for all others, which may be indices.

    Args:
        shapes: The shape (N, ...) of each input.
        types: The type of each input.
        seed: Seed of the noise.

    Returns:
        The array of a single input, in FP32; of several inputs all arrays.

    Example:
        >>> str(random_inputs({"x": (2, 3), "ids": (2, 5)}, {"x": np.dtype("float16"), "ids": np.dtype("int64")}))
        'x (3,) float32, ids (5,) int64'
    """
    random = np.random.default_rng(seed)
    arrays = {
        name: random.standard_normal(shape, np.float32) if types[name].kind == "f" else np.zeros(shape, types[name])
        for name, shape in shapes.items()
    }
    return NamedInputs(arrays) if len(arrays) > 1 else next(iter(arrays.values()))
