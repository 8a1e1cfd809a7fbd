"""What a user has at hand is taken as it comes: a loader, one tensor, a pattern as text."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from sparsegpt_core import PruneSettings, prune_model
from sparsegpt_core.errors import InputError
from sparsegpt_core.network import batches, network_inputs
from sparsegpt_core.patterns import NM, Unstructured
from sparsegpt_core.quality import preset

IMAGES = torch.randn(24, 4, 6, 6, generator=torch.Generator().manual_seed(0))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3)
        self.mix = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, image, scale, mask=None):
        return self.head(self.mix(self.conv(image) * scale[:, None, None, None]).mean((2, 3)))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 5))


def pruned(images, model=None, **settings):
    model = model or network()
    prune_model(model, images, PruneSettings(**settings))
    return torch.cat([parameter.flatten() for parameter in model.state_dict().values()])


@pytest.mark.parametrize(
    "given",
    [
        DataLoader([(image, 1) for image in IMAGES], batch_size=8),
        DataLoader(IMAGES, batch_size=8),
        ((batch, torch.zeros(8)) for batch in IMAGES.split(8)),
        DataLoader([{"input": image, "label": 3} for image in IMAGES], batch_size=8),
    ],
    ids=["images and labels", "images", "a generator", "dicts"],
)
def test_batches_of_a_loader_are_calibrated_on(given):
    assert torch.equal(pruned(given), pruned([*IMAGES.split(8)]))


def test_one_tensor_is_one_batch():
    assert torch.equal(pruned(IMAGES), pruned([IMAGES]))


def test_a_network_of_two_inputs_takes_both_and_no_label():
    scale, labels = torch.rand(24), torch.arange(24)
    expected = pruned([(IMAGES, scale)], TwoInputs_of())
    assert torch.equal(pruned([(IMAGES, scale, None, labels)], TwoInputs_of()), expected)
    assert torch.equal(pruned([{"label": labels, "scale": scale, "image": IMAGES}], TwoInputs_of()), expected)


def TwoInputs_of():
    torch.manual_seed(0)
    return TwoInputs()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"pixels": IMAGES}], "a batch names pixels, the model's inputs are input"),
        ([], "pruning needs calibration images"),
        ([(1, 2)], "a batch contains int"),
    ],
)
def test_batches_that_do_not_fit_are_one_line(given, message):
    with pytest.raises(InputError, match=message):
        pruned(given)


def test_a_loader_of_a_whole_data_set_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(batches, "available_memory", lambda _: 10 * IMAGES[:8].nbytes)
    loader = DataLoader(IMAGES.repeat(100, 1, 1, 1), batch_size=8)
    with pytest.raises(InputError, match="48 calibration images need") as error:
        network_inputs(network(), loader)
    assert "islice" in error.value.hint


def test_a_pattern_may_be_text():
    assert PruneSettings(pattern="2:4") == PruneSettings(NM(2, 4))
    assert PruneSettings(pattern=0.5, include="conv1") == PruneSettings(Unstructured(0.5), include=("conv1",))
    with pytest.raises(InputError, match=r"unknown pattern '\(2, 4\)'"):
        PruneSettings(pattern=(2, 4))
    with pytest.raises(InputError, match=r"the model is a Tensor, not a torch\.nn\.Module"):
        prune_model(torch.ones(2, 4), nn.Linear(4, 4), PruneSettings())
    with pytest.raises(InputError, match="the settings are a str"):
        prune_model(nn.Linear(4, 4), torch.ones(2, 4), "2:4")
    assert preset("fast", pattern="50%").settings.pattern == Unstructured(0.5)
    assert torch.equal(pruned(IMAGES, pattern="1:4"), pruned(IMAGES, pattern=NM(1, 4)))
    with pytest.raises(InputError, match="unknown pattern 'half'"):
        PruneSettings(pattern="half")
