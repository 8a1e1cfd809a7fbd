"""Pruning on a pretended GPU: no operation mixes devices, and the results are those of the CPU."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sparsegpt_core import PruneSettings, prune_model
from sparsegpt_core.activations import source as sources
from sparsegpt_core.activations.spill_store import ActivationStore
from sparsegpt_core.execution import Resources
from sparsegpt_core.patterns import NM, Unstructured
from sparsegpt_core.quality import QUALITIES
from tests.support.networks import Mixer, images
from tests.support.pretended_cuda import CUDA, plain, pretended_cuda

SETTINGS = {
    **{name: quality.settings for name, quality in QUALITIES.items()},
    "auto": PruneSettings(mask="auto", alpha=None),
    "exact": PruneSettings(mask="exact"),
    "magnitude": PruneSettings(method="magnitude"),
    "1:4": PruneSettings(pattern=NM(1, 4)),
    "unstructured": PruneSettings(pattern=Unstructured(0.5)),
    "all positions": PruneSettings(positions_per_column=0),
    "drawn positions": PruneSettings(positions_per_column=4),
}


def pruned(network, settings, device, **options):
    network = copy.deepcopy(network).to(device)
    result = prune_model(network, images((6, 6)), settings, **options)
    assert {parameter.device.type for parameter in network.parameters()} == {device.type}
    return plain(network.state_dict()), result


def check(settings, **options):
    torch.manual_seed(0)
    network = Mixer().eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected, on_cpu = pruned(network, settings, torch.device("cpu"), **options)
    finally:
        torch.set_num_threads(threads)
    with pretended_cuda():
        found, on_gpu = pruned(network, settings, CUDA, **options)
    assert on_gpu.pruned == on_cpu.pruned > 0
    assert [replace(layer, seconds=0) for layer in on_gpu.layers] == [
        replace(layer, seconds=0) for layer in on_cpu.layers
    ]
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    return on_gpu


def test_tensors_of_two_devices_do_not_mix():
    with pretended_cuda():
        on_gpu, on_cpu = torch.ones(3, device="cuda"), torch.ones(3)
        assert on_gpu.device == (on_gpu + 1).device == (on_gpu * on_cpu[0]).device == on_gpu.clone().device == CUDA
        assert on_gpu.cpu().device == on_cpu.device == torch.zeros(2).copy_(on_gpu[:2]).device == torch.device("cpu")
        assert on_cpu.to(CUDA).is_cuda
        assert copy.deepcopy(nn.Linear(3, 2).to(CUDA)).weight.device == CUDA
        for mix in (
            lambda: on_gpu + on_cpu,
            lambda: torch.cat([on_gpu, on_cpu]),
            lambda: torch.ops.aten.mul.Tensor(on_cpu, on_gpu),
            lambda: on_cpu.add_(on_gpu),
            lambda: nn.Linear(3, 2)(on_gpu),
            lambda: on_gpu.__setitem__(slice(2), on_cpu[:2]),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mix()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(on_gpu)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_prune_as_on_the_cpu(name):
    check(SETTINGS[name])


def test_int8_weights_are_those_of_the_cpu():
    check(PruneSettings(), int8_weights=True)


def test_the_fallback_prunes_as_on_the_cpu():
    check(PruneSettings(), resources=Resources(traced=False))


def test_activations_spill_to_host_memory_and_not_to_disk(monkeypatch, tmp_path):
    places = []
    own_put = ActivationStore.put

    def put(store, chunk, values):
        own_put(store, chunk, values)
        places.append(store._kept[chunk].place.type)

    monkeypatch.setattr(ActivationStore, "put", put)
    monkeypatch.setattr(sources, "available_memory", lambda device: 0 if device.type == "cuda" else 1 << 30)
    result = check(PruneSettings(), resources=Resources(scratch=tmp_path))
    assert set(places[-4:]) == {"cpu"}
    assert result.spilled_bytes == 0
