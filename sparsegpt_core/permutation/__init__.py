"""Reorders channels between layers to lower the loss of an N:M pattern. Outputs stay the same.

May import ``network``, ``linalg``, ``files`` and below.
"""

from sparsegpt_core.permutation.order_store import ORDERS
from sparsegpt_core.permutation.permute import PermutationResult, permute_channels

__all__ = ["ORDERS", "PermutationResult", "permute_channels"]
