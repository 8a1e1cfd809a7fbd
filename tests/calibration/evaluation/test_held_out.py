"""Pruned networks against the dense one on held-out images."""

from __future__ import annotations

import torch
from torch import nn

from calibration.evaluation import HeldOut, expected_disagreement, logit_noise, outputs_of
from sparsegpt_core.execution import World
from sparsegpt_core.progress import silent
from sparsegpt_core.pruning import prune_alone, prune_model
from sparsegpt_core.settings import PruneSettings


def network(classes: int = 10) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(4, 64, 1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
    ]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)).eval()


def images(count: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.nn.functional.avg_pool2d(torch.randn(count, 4, 8, 8, generator=generator), 3, 1, 1).split(32))


def test_errors_of_layers_alone_add_up_and_the_network_stays() -> None:
    model, calibration, batches = network(), images(64, 1), images(64, 2)
    held_out = HeldOut.of(model, batches, None, calibration, World())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    alone = prune_alone(model, calibration, PruneSettings())
    errors = held_out.errors(model, alone, silent)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for name, values in alone.items():
        other = network()
        for tensor, value in values:
            found = next(key for key, own in model.state_dict(keep_vars=True).items() if own is tensor)
            other.state_dict()[found].copy_(value)
        assert errors[name] == logit_noise(held_out.outputs, outputs_of(other, batches))
    prune_model(model, calibration, PruneSettings())
    noise = held_out.compare(model).noise
    assert noise is not None
    assert 0.5 * sum(errors.values()) < noise < 2 * sum(errors.values())


def test_the_expectation_takes_the_leads_of_all_images_and_no_classes_change_nothing() -> None:
    model, calibration, batches = network(), images(64, 1), images(32, 2)
    held_out = HeldOut.of(model, batches, None, calibration, World())
    everything = outputs_of(model, [*calibration, *batches])
    assert held_out.expect(0.01) == expected_disagreement(everything, 0.01) > 0
    single = network(classes=1)
    alone = HeldOut.of(single, batches, None, calibration, World())
    assert (alone.logits, alone.compare(single).noise, alone.expect(None)) == (None, None, 0.0)
