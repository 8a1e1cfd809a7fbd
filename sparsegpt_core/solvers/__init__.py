"""Solves one layer: tensors in, tensors out. The mask of a weight matrix is chosen here.

May import ``statistics``, ``network``, ``linalg`` and below, and never a network or a checkpoint.
"""

from sparsegpt_core.solvers.int8_rounding import grid_scales
from sparsegpt_core.solvers.layer_solver import Solution, solve
from sparsegpt_core.solvers.masks import keep_mask, magnitude

__all__ = ["Solution", "grid_scales", "keep_mask", "magnitude", "solve"]
