"""Reads which layers a profile leaves dense."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Dict, List, Tuple

from sparsegpt_core.errors import InputError
from sparsegpt_core.files import read_json

__all__ = ["MIN_GAIN", "layers_without_gain"]

MIN_GAIN = 1.02
"""The smallest gain for which pruning a layer pays. It is above 1, since times are noisy and estimates rough."""


def layers_without_gain(profile: Path, min_gain: float = MIN_GAIN) -> Tuple[str, ...]:
    """Return the modules that may stay dense, since their sparse kernels gain nothing.

    Args:
        profile: The JSON of ``predict`` or ``explain``, with ``layers`` [{``name``, ``gain``}]. A module with several
            calls (``name#2``) is returned if none of them gains. A layer with an unknown gain is pruned.
        min_gain: The smallest gain for which pruning a layer pays.

    Raises:
        InputError: The file is missing, or contains no such layers.

    Example:
        >>> gains = [{"name": "conv1", "gain": 1.0}, {"name": "conv2", "gain": 1.4}]
        >>> import json
        >>> _ = Path("predict.json").write_text(json.dumps({"layers": gains}))
        >>> layers_without_gain(Path("predict.json"))
        ('conv1',)
    """
    content = read_json(profile)
    gains: Dict[str, List[float]] = {}
    try:
        for layer in content["layers"]:
            gain = math.inf if layer["gain"] is None else float(layer["gain"])
            gains.setdefault(layer["name"].partition("#")[0], []).append(gain)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{profile} contains no layers with gains", "Write it with `sparsegpt-trt predict`."
        ) from error
    return tuple(name for name, each in gains.items() if max(each) < min_gain)
