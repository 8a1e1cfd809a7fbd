"""Factorises Hessians, whether they are held as a matrix or as the vectors that they sum.

May import ``execution`` and below.
"""

from sparsegpt_core.linalg.factor import Factor, inverse_factor
from sparsegpt_core.linalg.low_rank import Gram, LowRank, LowRankInverse, LowRankUpper, Upper, width

__all__ = ["Factor", "Gram", "LowRank", "LowRankInverse", "LowRankUpper", "Upper", "inverse_factor", "width"]
