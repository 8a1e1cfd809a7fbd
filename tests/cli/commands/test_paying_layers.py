"""The default prunes the layers that pay, as many as keep the network's classes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from deploy.predict import LayerGains
from sparsegpt_cli.jobs import layer_choice, pruning
from sparsegpt_cli.jobs.gains import PayingLayers

_NETWORK = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 512, 1), nn.Tanh()]
    layers += [nn.Conv2d(512, 512, 1), nn.Tanh(), nn.Conv2d(512, 512, 1), nn.Tanh()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 64, 10))
"""


@pytest.fixture
def prune(cli, tmp_path):
    """Prune 64 images, which calibration takes all, and return the outcome."""
    (tmp_path / "network.py").write_text(_NETWORK)
    digits = load_digits()
    np.savez(
        tmp_path / "images.npz", images=digits.images[:64, None].astype(np.float32) / 8 - 1, labels=digits.target[:64]
    )

    def run(*options):
        given = ("--model", f"{tmp_path}/network.py:network", "--data", f"npz:{tmp_path}/images.npz")
        engine = ("--pattern", "1:4", "--gpu", "orin-nano", "--engine-batch", 64)
        return cli("prune", *given, *engine, "--out", tmp_path / "out.safetensors", "--force", "--json", *options)

    return run


def _reasons(content):
    return {layer["name"]: layer["reason"] for layer in content["layers"]}


def test_layers_stay_dense_where_the_network_would_change_too_much(prune, monkeypatch):
    everything = prune("--max-disagreement", "100%", "--samples", "32").json
    assert _reasons(everything) == {
        "0": "CHANNELS_NOT_MULTIPLE", "2": "SMALL_CHANNELS", "4": None, "6": None, "9": "HEAD"
    }  # fmt: skip
    assert everything["gains"]["speedup"]["pruned"] == everything["gains"]["speedup"]["paying"] > 1.05

    monkeypatch.setattr(layer_choice, "_MAX_EXPECTED_DISAGREEMENT", 0.0)
    one = prune()  # and not none
    assert one.code == 0, one.err
    (dense,) = (layer for layer in one.json["layers"] if layer["reason"] == "SENSITIVE")
    (pruned,) = (layer for layer in one.json["layers"] if layer["status"] == "pruned")
    assert one.json["tradeoff"]["points"][1]["left_dense"] == dense["name"]
    assert pruned["positions"] == 64 * 64  # the last run takes all images
    assert 1 < one.json["gains"]["speedup"]["pruned"] < one.json["gains"]["speedup"]["paying"]
    assert "1 of 2 layers that pay stay dense" in " ".join(one.json["warnings"])

    expected = one.json["tradeoff"]["measured"][0]["expected_disagreement"]
    assert expected > 0.01
    monkeypatch.setattr(layer_choice, "_MAX_EXPECTED_DISAGREEMENT", 0.9 * expected)
    assert _reasons(prune().json) == _reasons(one.json)

    monkeypatch.setattr(layer_choice, "_MAX_EXPECTED_DISAGREEMENT", 1.1 * expected)
    whole = prune()  # 16 times the noise on images that calibrated is too much, and that on others is not
    assert whole.code == 0, whole.err
    assert whole.json["tradeoff"] is None
    assert _reasons(whole.json) == _reasons(everything)


def test_a_network_far_from_the_limit_is_pruned_once(prune, monkeypatch):
    runs = []

    def record(*arguments, **options):
        runs.append(options)
        return prune_model(*arguments, **options)

    prune_model = pruning.prune_model
    monkeypatch.setattr(pruning, "prune_model", record)
    monkeypatch.setattr(layer_choice, "_MAX_EXPECTED_DISAGREEMENT", 100.0)
    assert prune().json["tradeoff"] is None
    assert len(runs) == 1


def test_no_layer_pays(prune):
    outcome = prune("--gpu", "h100", "--engine-batch", 1)
    assert outcome.code == 1
    assert outcome.json["error"].startswith("no layer can become faster with 1:4 (h100, FP16, batch 1")
    assert "--layers all" in outcome.json["hint"]


def _give_maps(folder, *more):
    source = (folder / "network.py").read_text()
    (folder / "network.py").write_text(
        source.replace("nn.Flatten(), nn.Linear(512 * 64, 10)", ", ".join(["nn.Conv2d(512, 4, 1)", *more]))
    )


def test_maps_are_judged_by_their_relative_error(prune, tmp_path, monkeypatch):
    _give_maps(tmp_path)
    whole = prune("--max-disagreement", "100%", "--samples", "32").json
    error = 100 * whole["tradeoff"]["measured"][0]["logit_error"]

    monkeypatch.setattr(layer_choice, "_MAX_OUTPUT_ERROR", 1.1 * error)
    near = prune("--samples", "32").json
    assert near["tradeoff"] is None
    assert _reasons(near) == _reasons(whole)

    monkeypatch.setattr(layer_choice, "_MAX_OUTPUT_ERROR", 0.9 * error)
    far = prune("--samples", "32").json
    (dense,) = (layer for layer in far["layers"] if layer["reason"] == "SENSITIVE")
    assert far["tradeoff"]["points"][1]["left_dense"] == dense["name"]
    last = far["tradeoff"]["measured"][-1]
    assert last["expected_disagreement"] is None
    assert last["logit_error"] < 0.009 * error
    (warning,) = (text for text in far["warnings"] if "that pay stay dense" in text)
    assert f"the relative error of the outputs was {error:.0f} % with all of them" in warning


def test_outputs_that_are_neither_classes_nor_maps_are_not_judged(prune, tmp_path, monkeypatch):
    """Rows of boxes may only be sorted in another way."""
    _give_maps(tmp_path, "nn.Flatten(2)")
    monkeypatch.setattr(pruning, "HeldOut", None)
    outcome = prune("--samples", "32")
    assert outcome.code == 0, outcome.err
    assert (outcome.json["tradeoff"], outcome.json["gains"]["speedup"]["pruned"]) == (
        None, outcome.json["gains"]["speedup"]["paying"]
    )  # fmt: skip


def test_layers_of_unknown_shape_may_pay():
    verdict = PayingLayers(LayerGains({}, {}), ("conv",), {}, "a100, FP16, batch 8").verdict
    assert verdict.startswith("what 2:4 gains is unknown (a100, FP16, batch 8)")
