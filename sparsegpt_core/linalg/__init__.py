"""A layer's Hessian H, stored as a matrix or as its root, and the triangular factor of the damped H.

May import ``execution`` and below.
"""

from sparsegpt_core.linalg.dense import DenseHessian, DenseUpper
from sparsegpt_core.linalg.hessian import Factor, Hessian, Inverse, Upper
from sparsegpt_core.linalg.low_rank import LowRankHessian, LowRankUpper

__all__ = [
    "DenseHessian",
    "DenseUpper",
    "Factor",
    "Hessian",
    "Inverse",
    "LowRankHessian",
    "LowRankUpper",
    "Upper",
]
