"""Turns FP32 graphs into INT8: calibrates the activations' ranges and judges them by the network's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import Tensor

from calibration.ranges import METHODS, calibrate
from export.execution import observe_activations
from export.exporter import ExportSettings
from export.precision import plan_int8, set_scales, to_int8
from sparsegpt_core.network import Int8Weight, tensors_of
from sparsegpt_core.progress import Progress, silent

__all__ = ["Int8Quantiser", "quantise_model"]

_JUDGING_BATCH_EVERY = 4  # one batch in four judges the activations' ranges

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Int8Quantiser:
    """Turns FP32 graphs into INT8. :class:`~export.exporter.Exporter` calls it."""

    batches: Sequence[Tensor]
    """Images (N, C, H, W), or batches of several inputs, for the activations' ranges."""
    int8_weights: Mapping[str, Int8Weight] = field(default_factory=dict)
    """Weights that pruning has rounded, by module. All others are rounded to nearest."""

    def __call__(
        self, model: onnx.ModelProto, state: Mapping[str, Tensor], settings: ExportSettings, progress: Progress
    ) -> onnx.ModelProto:
        """Return the INT8 form of an FP32 graph."""
        return quantise_model(model, self, state, settings.ranges, settings.int8_ends, progress)


def quantise_model(
    model: onnx.ModelProto,
    quantiser: Int8Quantiser,
    state: Mapping[str, Tensor],
    method: str = "auto",
    ends: bool = False,
    progress: Progress = silent,
) -> onnx.ModelProto:
    """Return an INT8 copy of an FP32 graph, with explicit Q/DQ nodes.

    The ranges are fitted to some of the images and judged on the others. Every fourth batch is held out; of two or
    three batches the last one, and of a single batch the second half of its images. A single image serves for both.

    Args:
        model: The FP32 graph.
        quantiser: The images and the rounded weights.
        state: The network's parameters by name.
        method: How ranges are chosen: one of :data:`~calibration.ranges.METHODS` for all tensors, or ``auto``.
            ``auto`` tries a graph with each method, and one in which each tensor has the method with its least
            error. It returns the graph whose outputs on held-out images are nearest to the FP32 graph's.
        ends: Whether the first and the last layer are quantised too. A network with no other layer has them
            quantised in any case.
        progress: Receives the progress of the calibration.

    Raises:
        SparseGPTError: Placement, calibration or quantisation failed.
    """
    plan = plan_int8(model, ends=ends)
    fit, held_out = (list(map(_arrays, batches)) for batches in _split([*quantiser.batches]))
    ranges = calibrate(observe_activations(model, plan.tensors), fit, held_out, method, progress)

    def scales(each: str) -> dict[str, float]:
        own = ranges if each == method else {name: replace(found, method=each) for name, found in ranges.items()}
        return {name: found.scale for name, found in own.items()}

    int8 = to_int8(model, plan, scales(method), quantiser.int8_weights, state)
    if method != "auto":
        return int8
    expected, errors = _outputs(model, held_out), dict[str, float]()
    for each in ("auto", *METHODS):  # the weights are the same in all of them
        set_scales(int8, plan, scales(each))
        errors[each] = _squared_error(_outputs(int8, held_out), expected)
    set_scales(int8, plan, scales(min(errors, key=errors.__getitem__)))
    return int8


def _arrays(batch: Tensor) -> list[Array]:
    """Return the array of each input."""
    return [tensor.cpu().numpy() for tensor in tensors_of(batch)]


def _split(batches: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the batches that ranges are fitted to, and the held-out ones that judge them."""
    if len(batches) == 1:
        (images,) = batches
        middle = (len(images) + 1) // 2
        return ([images[:middle]], [images[middle:]]) if len(images) > 1 else (batches, batches)
    held_out = batches[_JUDGING_BATCH_EVERY - 1 :: _JUDGING_BATCH_EVERY]
    if not held_out:
        return batches[:-1], batches[-1:]
    return [batch for index, batch in enumerate(batches, 1) if index % _JUDGING_BATCH_EVERY], held_out


def _outputs(model: onnx.ModelProto, batches: Sequence[Sequence[Array]]) -> list[Array]:
    observe = observe_activations(model, [output.name for output in model.graph.output])
    return [output for batch in batches for output in observe(batch).values()]


def _squared_error(outputs: Sequence[Array], expected: Sequence[Array]) -> float:
    return sum(float(np.square(a - b).sum()) for a, b in zip(outputs, expected, strict=True))
