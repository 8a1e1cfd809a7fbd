"""Prunes a whole network: one layer after the other, with SparseGPT on each layer's Hessian.

May import every other room of ``sparsegpt_core``.
"""

from sparsegpt_core.pruning.channel_order import permute_model
from sparsegpt_core.pruning.global_budget import global_quotas
from sparsegpt_core.pruning.layer_choices import LayerChoices
from sparsegpt_core.pruning.layer_store import run_key
from sparsegpt_core.pruning.research_project import cnn_sparsegpt
from sparsegpt_core.pruning.results import LayerResult, PruneResult
from sparsegpt_core.pruning.sequential import prune_alone, prune_model
from sparsegpt_core.pruning.tradeoff import Tradeoff, fewest

__all__ = [
    "LayerChoices",
    "LayerResult",
    "PruneResult",
    "Tradeoff",
    "cnn_sparsegpt",
    "fewest",
    "global_quotas",
    "permute_model",
    "prune_alone",
    "prune_model",
    "run_key",
]
