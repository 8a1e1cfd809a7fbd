"""The share of a network's time that the sparse kernels of each layer save: estimated, or measured where it was."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from deploy.predict.estimate import MIN_GAIN, EstimatedPrediction
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import read_json
from sparsegpt_core.reasons import Reason

__all__ = ["LayerGains", "MeasuredGain", "find_gains", "read_profile"]

# Rows with other reasons say nothing of the gain: the layer was dense, or its engine could not run sparse kernels.
_TELLING = (None, Reason.SMALL_CHANNELS, Reason.ELIGIBLE_NOT_CHOSEN, Reason.CHOSEN_NO_GAIN)


@dataclass(frozen=True)
class MeasuredGain:
    """The measured gain of one layer."""

    gain: float
    """The dense kernel's time divided by the sparse kernel's."""
    reason: Reason
    """Why there is no gain, if there is none."""


@dataclass(frozen=True)
class LayerGains:
    """What sparse kernels gain in each layer of a network.

    Example:
        >>> gains = LayerGains({"conv1": 0.0, "conv2": 0.2}, {"conv1": Reason.SMALL_CHANNELS})
        >>> gains.speedup(["conv1", "conv2"])
        1.25
    """

    saved: Mapping[str, float]
    """The share of the dense network's time that a layer's sparse kernels save, 0 to 1, by layer."""
    reasons: Mapping[str, Reason]
    """Why a layer saves nothing, by layer."""

    def speedup(self, layers: Collection[str]) -> float:
        """Return the speed-up of the network with these layers pruned.

        Args:
            layers: Names of layers. A layer with an unknown gain counts as one without.
        """
        return 1 / (1 - sum(self.saved.get(layer, 0.0) for layer in layers))


def find_gains(
    prediction: EstimatedPrediction, layers: Collection[str], profile: Optional[Mapping[str, MeasuredGain]] = None
) -> LayerGains:
    """Find the gain of each layer of a network.

    A layer with several calls (nodes ``name``, ``name#2``) saves the time of all its calls. Layers whose shapes are
    unknown are left out.

    Args:
        prediction: The estimate for the network's dense ONNX file.
        layers: The names of the network's layers.
        profile: Measured gains by node, in place of the estimated ones.

    Raises:
        InputError: The profile belongs to another network.

    Example:
        >>> find_gains(predict(Path("dense.onnx")), ["conv1", "conv2"]).reasons  # doctest: +SKIP
        {'conv1': <Reason.SMALL_CHANNELS: 'SMALL_CHANNELS'>}
    """
    if profile and profile.keys().isdisjoint(node.name for node in prediction.layers):
        raise InputError(
            f"the profile belongs to another network: this one has no layer '{next(iter(profile))}'",
            "Use a profile of this network's ONNX file.",
        )
    saved: Dict[str, float] = {}
    reasons: Dict[str, Reason] = {}
    for node in prediction.layers:
        name = _layer_of(node.name, layers)
        measured = (profile or {}).get(node.name)
        gain = measured.gain if measured else node.gain
        if name is None or node.share is None or gain is None:
            continue
        reason = measured.reason if measured else node.reason or Reason.SMALL_CHANNELS
        saved[name] = saved.get(name, 0.0) + (node.share * (1 - 1 / gain) if gain >= MIN_GAIN else 0.0)
        reasons[name] = reason
    return LayerGains(saved, {name: reason for name, reason in reasons.items() if not saved[name]})


def read_profile(path: Path) -> Dict[str, MeasuredGain]:
    """Read the measured gains of a network's layers. Layers whose gain was not measured are left out.

    Args:
        path: The JSON of ``predict`` or ``explain``, with ``layers`` [{``name``, ``gain``, ``reason``}]; or that of
            ``benchmark``, which has it as ``explanation``.

    Raises:
        InputError: The file is missing, or contains no such layers.

    Example:
        >>> import json
        >>> layers = [{"name": "conv1", "gain": 1.0, "reason": "ELIGIBLE_NOT_CHOSEN"}, {"name": "conv2", "gain": 1.4}]
        >>> _ = Path("predict.json").write_text(json.dumps({"layers": layers}))
        >>> read_profile(Path("predict.json"))["conv2"].gain
        1.4
    """
    content = read_json(path)
    try:
        rows: List[Any] = (content.get("explanation") or content)["layers"]
        reasons = [Reason(row["reason"]) if row.get("reason") else None for row in rows]
        return {
            str(row["name"]): MeasuredGain(_gain(row["gain"]), reason or Reason.CHOSEN_NO_GAIN)
            for row, reason in zip(rows, reasons)
            if row["gain"] is not None and reason in _TELLING
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} contains no layers with gains",
            "Write it with `sparsegpt-trt predict` or `sparsegpt-trt benchmark`.",
        ) from error


def _gain(value: Any) -> float:
    gain = float(value)
    if not 0 < gain < math.inf:
        raise ValueError(value)
    return gain


def _layer_of(node: str, layers: Collection[str]) -> Optional[str]:
    """Return the layer that a node belongs to; None for a node of no listed layer."""
    return next((name for name in (node, node.partition("#")[0]) if name in layers), None)
