"""Which layers a profile leaves dense."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Dict, List, Tuple

from sparsegpt_core.errors import InputError
from sparsegpt_core.files import read_json

__all__ = ["layers_without_gain"]


def layers_without_gain(profile: Path, min_gain: float = 1.02) -> Tuple[str, ...]:
    """Name the modules that may stay dense, since their sparse kernels gain nothing.

    Args:
        profile: JSON with ``layers`` [{``name``, ``gain``}]: what ``predict`` or ``explain`` wrote. A module with
            several calls (``name#2``) is named if none of them gains; unknown gains speak for pruning.
        min_gain: The gain from which on a layer is worth pruning; a little above 1, since measured times are noisy.

    Raises:
        InputError: The file is missing, or holds no such layers.
    """
    content = read_json(profile)
    gains: Dict[str, List[float]] = {}
    try:
        for layer in content["layers"]:
            gain = math.inf if layer["gain"] is None else float(layer["gain"])
            gains.setdefault(layer["name"].partition("#")[0], []).append(gain)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{profile} holds no layers with gains", "Write it with `sparsegpt-trt predict`.") from error
    return tuple(name for name, each in gains.items() if max(each) < min_gain)
