"""A layer's Hessian H, stored as a matrix or as its root, and the triangular factor of the damped H.

May import ``execution`` and below.
"""

from sparsegpt_core.linalg.dense import DenseGram, DenseUpper
from sparsegpt_core.linalg.gram import Factor, Gram, Upper
from sparsegpt_core.linalg.low_rank import LowRankGram, LowRankInverse, LowRankUpper

__all__ = ["DenseGram", "DenseUpper", "Factor", "Gram", "LowRankGram", "LowRankInverse", "LowRankUpper", "Upper"]
