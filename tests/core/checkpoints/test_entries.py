"""Which weights of a file are taken: raw or averaged, and the formats that are named as such."""

import pytest
import torch
from torch import nn

from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
from sparsegpt_core.errors import ModelError

RAW, EMA = {"fc.weight": torch.ones(2, 3)}, {"fc.weight": torch.zeros(2, 3)}
OPTIMIZER = {"state": {"fc.weight": {"step": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize("names", [("model", "model_ema"), ("state_dict", "state_dict_ema")])  # DeiT, timm
def test_raw_weights_are_taken_and_averaged_ones_named(tmp_path, names):
    path = tmp_path / "net.pt"
    torch.save({names[1]: EMA, names[0]: RAW, "optimizer": OPTIMIZER, "epoch": 3}, path)
    taken = load_checkpoint(path)
    assert (taken.key, taken.other_keys) == (names[0], (names[1],))
    assert torch.equal(taken.state["fc.weight"], RAW["fc.weight"])
    chosen = load_checkpoint(path, names[1])
    assert (chosen.key, chosen.other_keys) == (names[1], (names[0],))
    assert torch.equal(chosen.state["fc.weight"], EMA["fc.weight"])


def test_entries_within_entries(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"model": {"state_dict": RAW, "ema": EMA}}, path)
    assert load_checkpoint(path).key == "model.state_dict"
    assert load_checkpoint(path, "model.ema").other_keys == ("model.state_dict",)


def test_the_only_entry_is_taken_and_one_of_several_must_be_chosen(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"params": RAW, "epoch": 3}, path)
    assert load_checkpoint(path).key == "params"
    torch.save({"params": RAW, "params_ema": EMA}, path)
    with pytest.raises(ModelError, match="contains several state dicts: params, params_ema") as caught:
        load_checkpoint(path)
    assert caught.value.hint == "Choose one with `weights_key`."


def test_a_wrong_entry(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"model": RAW, "model_ema": EMA, "epoch": 3}, path)
    for key in ("model_ma", "epoch", ""):
        with pytest.raises(ModelError, match=f"has no state dict '{key}'") as caught:
            load_checkpoint(path, key)
        assert caught.value.hint == "Give `weights_key` one of model, model_ema."


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_an_entry_of_a_file_without_entries(tmp_path, name):
    path = tmp_path / name
    torch.save(RAW, path) if name.endswith(".pt") else save_checkpoint(path, RAW, {})
    assert load_checkpoint(path).key == ""
    with pytest.raises(ModelError, match="has no entry 'model': it is one state dict") as caught:
        load_checkpoint(path, "model")
    assert caught.value.hint == "Leave `weights_key` out."


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_named(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), path)
    with pytest.raises(ModelError, match=r"net\.pt is a TorchScript archive, not a checkpoint") as caught:
        load_checkpoint(path)
    assert "torch.jit.load" in caught.value.hint
