"""INT8 graphs: which tensors, which ranges, and the network as a whole as their judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import Tensor

from calibration.ranges import METHODS, calibrate
from export.execution import observer
from export.exporter import ExportSettings
from export.precision import plan, to_int8
from sparsegpt_core.network import Int8Weight
from sparsegpt_core.progress import Progress, silent

__all__ = ["Quantisation", "quantise_graph"]

_HELD_OUT = 4  # every which batch judges activation ranges

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Quantisation:
    """What INT8 files are made by.

    ``batches`` (N, C, H, W) give the activations' ranges, every fourth of them judging; ``integers`` are weights that
    the sweep has rounded, all others are rounded to nearest.
    """

    batches: Sequence[Tensor]
    integers: Mapping[str, Int8Weight] = field(default_factory=dict)

    def __call__(
        self, graph: onnx.ModelProto, state: Mapping[str, Tensor], settings: ExportSettings, progress: Progress
    ) -> onnx.ModelProto:
        """Put a graph on INT8, as :class:`~export.exporter.Exporter` asks for it."""
        return quantise_graph(graph, self, state, settings.ranges, settings.int8_ends, progress)


def quantise_graph(
    graph: onnx.ModelProto,
    quantisation: Quantisation,
    state: Mapping[str, Tensor],
    method: str = "auto",
    ends: bool = False,
    progress: Progress = silent,
) -> onnx.ModelProto:
    """Put a graph on INT8 by explicit Q/DQ.

    Args:
        graph: FP32, below 2 GiB.
        quantisation: Images and rounded weights.
        state: The model's parameters by name.
        method: How ranges are chosen, one of :data:`~calibration.ranges.METHODS`; ``auto`` tries each for
            all
            tensors, and for every tensor the one with the least error there, and takes what leaves the network's own
            outputs nearest on held-out images: errors of single tensors alone mislead.
        ends: Whether the first and the last layer are quantised too.
        progress: Told of the calibration of ranges.

    Raises:
        SparseGPTError: As placement, calibration and quantisation raise it.
    """
    chosen = plan(graph)
    if not ends:
        chosen = plan(graph, exclude=(chosen.layers[0], chosen.layers[-1]))
    batches = [batch.cpu().numpy() for batch in quantisation.batches]
    judging = batches[_HELD_OUT - 1 :: _HELD_OUT] or batches[-1:]
    fitting = [batch for index, batch in enumerate(batches) if index % _HELD_OUT != _HELD_OUT - 1]
    ranges = calibrate(observer(graph, chosen.tensors), fitting, judging, method, progress)

    def quantised(each: str) -> onnx.ModelProto:
        own = ranges if each == method else {name: replace(found, method=each) for name, found in ranges.items()}
        scales = {name: found.scale for name, found in own.items()}
        return to_int8(graph, chosen, scales, quantisation.integers, state)

    if method != "auto":
        return quantised(method)
    expected = _outputs(graph, judging)
    trials = (quantised(each) for each in ("auto", *METHODS))
    return min(trials, key=lambda trial: _error(_outputs(trial, judging), expected))


def _outputs(graph: onnx.ModelProto, batches: Sequence[Array]) -> list[Array]:
    observe = observer(graph, [output.name for output in graph.graph.output])
    return [output for batch in batches for output in observe(batch).values()]


def _error(outputs: Sequence[Array], expected: Sequence[Array]) -> float:
    return sum(float(np.square(a - b).sum()) for a, b in zip(outputs, expected, strict=True))
