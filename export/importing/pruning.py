"""Prunes an ONNX model: model in, model out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx
from torch import Tensor

from export.audit import map_model
from export.importing.onnx_network import OnnxNetwork
from export.onnxruntime_session import load_operators
from sparsegpt_core.network import Batch
from sparsegpt_core.progress import Progress, silent
from sparsegpt_core.pruning import PruneResult, prune_model
from sparsegpt_core.settings import PruneSettings

__all__ = ["prune_onnx"]


def prune_onnx(
    model: Path | onnx.ModelProto,
    batches: Tensor | Iterable[Batch | Mapping[str, Tensor]],
    settings: PruneSettings,
    progress: Progress = silent,
    *,
    custom_operators: Sequence[str] = (),
) -> tuple[onnx.ModelProto, PruneResult]:
    """Prune an ONNX model.

    Args:
        model: A file, or a model in memory. Neither is changed. The file's external data must not change meanwhile.
        batches: Calibration inputs as the graph takes them: one tensor (N, C, H, W), or batches: tensors, tuples with
            a tensor for each input, or dicts that name them as the graph does.
        settings: Pattern, method and layers. Layers have the names of their nodes.
        progress: Called after every layer.
        custom_operators: The paths of libraries with custom operators. ONNX Runtime keeps them in this process.

    Returns:
        The same model with pruned weights, and what was done to each layer. Only weights, and the constants that keep
        the outputs' means, differ.

    Raises:
        InputError: The file cannot be read as ONNX, a library cannot be loaded, or there are no inputs.
        ModelError: ONNX Runtime cannot run the graph, or there is nothing to prune.
        NumericsError: NaN or infinity in weights or activations, or a Hessian that cannot be damped.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from export.audit import audit_model
        >>> from export.writing import export_model
        >>> layers = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(72, 2))
        >>> model = export_model(layers.eval(), (4, 3, 3))
        >>> sparse, result = prune_onnx(model, torch.randn(16, 4, 3, 3), PruneSettings())
        >>> [(layer.name, layer.status) for layer in result.layers], audit_model(sparse).sparse_layers
        ([('0', 'dense'), ('1', 'pruned'), ('3', 'dense')], 1)
    """
    for library in custom_operators:
        load_operators(library)
    network = OnnxNetwork(map_model(model) if isinstance(model, Path) else model)
    result = prune_model(network, batches, settings, progress)
    return network.to_onnx(), result
