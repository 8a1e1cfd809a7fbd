"""Gains by layer against sums over the nodes of a graph, and profiles of measured gains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from deploy.predict import EstimatedPrediction, MeasuredGain, find_gains, predict, read_profile
from export.writing import export_model, save_model
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import write_json
from sparsegpt_core.reasons import Reason

LAYERS = ("conv1", "layer1.0.conv1", "layer4.0.conv1", "layer4.1.conv2")


@pytest.fixture(scope="module")
def prediction(tmp_path_factory: pytest.TempPathFactory) -> EstimatedPrediction:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("resnet") / "dense.onnx"
    save_model(export_model(resnet18().eval(), (3, 64, 64)), path)
    return predict(path, (32, 32, 32), "rtx3060")


def test_a_network_is_faster_by_what_its_layers_save(prediction: EstimatedPrediction) -> None:
    gains = find_gains(prediction, LAYERS)
    nodes = {node.name: node for node in prediction.layers}
    assert gains.reasons == {"conv1": Reason.CHANNELS_NOT_MULTIPLE, "layer1.0.conv1": Reason.SMALL_CHANNELS}
    assert gains.speedup(["conv1", "layer1.0.conv1", "unknown"]) == 1
    for pruned in (["layer4.1.conv2"], ["layer4.0.conv1", "layer4.1.conv2"]):
        seconds = prediction.seconds
        for name in pruned:
            seconds += nodes[name].sparse_seconds - nodes[name].seconds
        assert gains.speedup(pruned) == pytest.approx(prediction.seconds / seconds)
    everything = find_gains(prediction, list(nodes))
    assert everything.speedup(list(nodes)) == pytest.approx(prediction.bound)


def test_measured_gains_come_before_estimated_ones(prediction: EstimatedPrediction) -> None:
    share = {node.name: node.share for node in prediction.layers}
    profile = {
        "layer1.0.conv1": MeasuredGain(1.25, Reason.CHOSEN_NO_GAIN),
        "layer4.1.conv2": MeasuredGain(1.01, Reason.CHOSEN_NO_GAIN),
    }
    gains = find_gains(prediction, LAYERS, profile)
    assert gains.saved["layer1.0.conv1"] == pytest.approx(share["layer1.0.conv1"] * 0.2)
    assert gains.reasons["layer4.1.conv2"] == Reason.CHOSEN_NO_GAIN
    assert gains.saved["layer4.0.conv1"] == find_gains(prediction, LAYERS).saved["layer4.0.conv1"]
    with pytest.raises(InputError, match="another network: this one has no layer 'stem'"):
        find_gains(prediction, LAYERS, {"stem": MeasuredGain(1.2, Reason.CHOSEN_NO_GAIN)})


def test_a_module_saves_what_all_its_calls_save(prediction: EstimatedPrediction) -> None:
    names = {"layer4.0.conv1": "conv", "layer4.1.conv2": "conv#2", "layer1.0.conv1": "name#2"}
    fields = vars(prediction)
    nodes = [type(node)(**{**vars(node), "name": names.get(node.name, node.name)}) for node in prediction.layers]
    gains = find_gains(EstimatedPrediction(**{**fields, "layers": tuple(nodes)}), ["conv", "name#2"])
    apart = find_gains(prediction, LAYERS).saved
    assert gains.saved == {"conv": apart["layer4.0.conv1"] + apart["layer4.1.conv2"], "name#2": 0}


def test_rows_that_measured_nothing_are_left_out(tmp_path: Path) -> None:
    rows = [("a", 1.3, None), ("b", 0.9, "ELIGIBLE_NOT_CHOSEN"), ("c", None, None), ("d", 1.0, "NOT_NM")]
    rows += [("e", 1.0, "FLAG_OFF"), ("f", 1.0, "SMALL_CHANNELS")]
    layers = [{"name": name, "gain": gain, "reason": reason} for name, gain, reason in rows]
    write_json(tmp_path / "explain.json", {"layers": layers})
    write_json(tmp_path / "benchmark.json", {"explanation": {"layers": layers}})
    for file in ("explain.json", "benchmark.json"):
        profile = read_profile(tmp_path / file)
        assert {name: gain.gain for name, gain in profile.items()} == {"a": 1.3, "b": 0.9, "f": 1.0}
        assert profile["b"].reason == Reason.ELIGIBLE_NOT_CHOSEN


@pytest.mark.parametrize(
    "content",
    [
        *([], {}, {"layers": 3}, {"layers": [3]}, {"layers": [{"name": "a"}]}, {"explanation": {}}),
        *({"layers": [{"name": "a", "gain": "fast"}]}, {"layers": [{"name": "a", "gain": [1]}]}),
        *({"layers": [{"name": "a", "gain": 0}]}, {"layers": [{"name": "a", "gain": 1, "reason": "SLOW"}]}),
    ],
)
def test_files_that_are_not_profiles_are_refused(content: object, tmp_path: Path) -> None:
    write_json(tmp_path / "p.json", content)
    with pytest.raises(InputError, match=r"p\.json") as caught:
        read_profile(tmp_path / "p.json")
    assert caught.value.hint
