"""Delivers each layer's inputs, in running order, while the layers before it are being pruned.

May import ``statistics``, ``network``, ``execution`` and below.
"""

from sparsegpt_core.activations.demand import LayerDemand
from sparsegpt_core.activations.source import Source, open_source

__all__ = ["LayerDemand", "Source", "open_source"]
