"""Reorders channels between layers, so that an N:M pattern costs less. Outputs stay the same.

May import ``network``, ``linalg``, ``files`` and below.
"""

from sparsegpt_core.permutation.order_store import ORDERS
from sparsegpt_core.permutation.permute import PermutationResult, permute_channels

__all__ = ["ORDERS", "PermutationResult", "permute_channels"]
