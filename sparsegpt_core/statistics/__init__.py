"""Sums a layer's inputs into its Hessian and the other moments for the solvers.

May import ``network``, ``linalg``, ``execution`` and below.
"""

from sparsegpt_core.statistics.layer_statistics import LayerStatistics
from sparsegpt_core.statistics.moments import Moments, pooled
from sparsegpt_core.statistics.output_statistics import OutputMoments, OutputStatistics
from sparsegpt_core.statistics.split_statistics import SplitStatistics

__all__ = ["LayerStatistics", "Moments", "OutputMoments", "OutputStatistics", "SplitStatistics", "pooled"]
