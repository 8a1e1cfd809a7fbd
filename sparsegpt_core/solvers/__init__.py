"""Solves one layer: chooses the mask of its weight matrix and the values of the kept weights. Tensors in, tensors out.

May import ``statistics``, ``network``, ``linalg`` and below, and never a network or a checkpoint.
"""

from sparsegpt_core.solvers.int8_rounding import grid_scales
from sparsegpt_core.solvers.layer_solver import Solution, solve
from sparsegpt_core.solvers.masks import keep_mask, magnitude
from sparsegpt_core.solvers.output_match import OutputMatch, match_outputs

__all__ = ["OutputMatch", "Solution", "grid_scales", "keep_mask", "magnitude", "match_outputs", "solve"]
