"""The moments of one layer's inputs, from a source of layer inputs."""

from __future__ import annotations

from sparsegpt_core.activations import LayerDemand, Source
from sparsegpt_core.execution import World
from sparsegpt_core.network import Layer
from sparsegpt_core.progress import timed
from sparsegpt_core.statistics import Moments, SplitStatistics

__all__ = ["gather_moments"]


def gather_moments(
    layer: Layer,
    source: Source,
    demand: LayerDemand,
    *,
    centred: bool,
    positions_per_column: float,
    world: World,
    seconds: dict[str, float],
) -> tuple[Moments, Moments | None]:
    """Gather the layer's inputs on all processes, and return the moments of the fitted and the held-out samples.

    They belong to :attr:`~sparsegpt_core.network.Layer.scaled_matrix`. A wide layer with few samples keeps its
    positions. Every other layer sums its Hessian.

    Args:
        layer: One of the demanded layers, in running order.
        source: Where its inputs come from.
        demand: The demand that the source was opened with.
        centred: Whether the moments are about the means.
        positions_per_column: Positions to sample for each column; 0: all.
        world: The processes that share the samples.
        seconds: Receives the time of ``statistics``.
    """
    statistics = SplitStatistics(
        layer.prunable,
        demand.samples,
        demand.held_out_samples,
        kept_vectors=demand.kept_vectors(layer),
        cross=source.compares(layer),
        centred=centred,
        positions_per_column=positions_per_column,
        output_scale=layer.output_scale,
    )
    source.gather(layer, statistics)
    with timed(seconds, "statistics"):
        world.add_up(statistics.sums())
        return statistics.moments(layer.name)
