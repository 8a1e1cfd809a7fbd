"""A network from an ONNX file within a memory limit."""

from __future__ import annotations

import onnx
import torch

from export.importing import OnnxNetwork
from export.writing import export_model
from sparsegpt_core.activations import source
from sparsegpt_core.execution import Resources
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings
from tests.support.networks import Mixer


def _pruned(model: onnx.ModelProto, **resources):
    network, images = OnnxNetwork(model), torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    result = prune_model(network, images, PruneSettings(include=("*",)), resources=Resources(**resources))
    return network.to_onnx().SerializeToString(deterministic=True), result


def test_spilling_to_disk_changes_nothing(monkeypatch, tmp_path):
    torch.manual_seed(0)
    model = export_model(Mixer().eval(), (4, 8, 8))
    monkeypatch.setattr("sparsegpt_core.activations.memory_plan._CHUNK_BYTES", {"cpu": 4 * 8 * 8 * 8})  # one image
    kept, roomy = _pruned(model)
    monkeypatch.setattr(source, "available_memory", lambda device: 0)
    spilled, tight = _pruned(model, scratch=tmp_path)
    assert roomy.spilled_bytes == 0
    assert tight.spilled_bytes > 0
    assert kept == spilled
    assert kept != model.SerializeToString(deterministic=True)
