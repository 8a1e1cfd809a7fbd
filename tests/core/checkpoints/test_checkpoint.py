import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from sparsegpt_core.checkpoints import load_checkpoint, load_int8, load_into, save_checkpoint, save_int8
from sparsegpt_core.errors import ModelError, NumericsError
from sparsegpt_core.files import sha256
from sparsegpt_core.network import Int8Weight
from sparsegpt_core.zoo import ModelShape, build_model

STATE = {"a": torch.randn(3, 4), "b.c": torch.arange(5)}


class Code:
    """Unpickling this would call ``open`` on a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def equal(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[name], STATE[name]) for name in STATE)


def test_safetensors_round_trip(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, STATE, {"model": "simple_cnn", "mean": [0.5]})
    loaded = load_checkpoint(path)
    assert equal(loaded.state)
    assert loaded.metadata == {"model": "simple_cnn", "mean": [0.5]}
    assert loaded.sha256 == sha256(path)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]


def test_equal_content_gives_equal_bytes(tmp_path):
    for name in ("one", "two"):
        save_checkpoint(tmp_path / f"{name}.safetensors", STATE, {"z": 1, "a": 2})
    assert sha256(tmp_path / "one.safetensors") == sha256(tmp_path / "two.safetensors")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
def test_pt_with_common_wrappers(tmp_path, wrap):
    path = tmp_path / "weights.pt"
    torch.save(wrap(STATE), path)
    assert equal(load_checkpoint(path).state)


def test_a_pickled_object_is_refused_and_not_run(tmp_path):
    path, victim = tmp_path / "weights.pt", tmp_path / "victim"
    torch.save({"a": STATE["a"], "evil": Code(victim)}, path)
    with pytest.raises(ModelError, match="more than tensors"):
        load_checkpoint(path)
    assert not victim.exists()


def test_the_content_tells_the_format(tmp_path):
    state = nn.Linear(4, 2).state_dict()
    save_checkpoint(tmp_path / "a.safetensors", state, {"model": "mine"})
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.safetensors")
    named, other = load_checkpoint(tmp_path / "a.pt"), load_checkpoint(tmp_path / "b.safetensors")
    assert named.metadata == {"model": "mine"}
    assert all(torch.equal(found.state["weight"], state["weight"]) for found in (named, other))


def test_counters_may_be_half_precision_too():
    network = nn.BatchNorm1d(4)
    load_into(network, {name: value.half() for name, value in network.state_dict().items()})


def test_a_whole_model_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ModelError, match="more than tensors"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "half", "text", "other end"])
def test_damaged_files(tmp_path, name, damage):
    path = tmp_path / name
    if name.endswith(".pt"):
        torch.save(STATE, path)
    else:
        save_checkpoint(path, STATE, {})
    whole = path.read_bytes()
    content = {"empty": b"", "half": whole[: len(whole) // 2], "text": b"hello world\n" * 9, "other end": whole[40:]}
    path.write_bytes(content[damage])
    with pytest.raises(ModelError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickle_without_tensors(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelError):
        load_checkpoint(path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ModelError, match="no checkpoint at"):
            load_checkpoint(path)


def test_nan_weights_are_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, {"fine": torch.ones(2), "layer4.conv.weight": torch.tensor([1.0, float("inf")])}, {})
    with pytest.raises(NumericsError, match=r"layer4\.conv\.weight"):
        load_checkpoint(path)


def test_weights_that_do_not_fit():
    model = build_model("simple_cnn", ModelShape((1, 8, 8)))
    state = model.state_dict()
    load_into(model, state)
    first = next(iter(state))
    cases = {
        "has no": {name: value for name, value in state.items() if name != first},
        "which the model does not have": {**state, "extra": torch.ones(1)},
        "has shape": {**state, first: torch.ones(1)},
    }
    for message, wrong in cases.items():
        with pytest.raises(ModelError, match=message):
            load_into(model, wrong)


def test_int8_weights_belong_to_their_checkpoint(tmp_path):
    path = tmp_path / "sparse.safetensors"
    save_checkpoint(path, STATE, {})
    assert load_int8(path) == {}
    weight = Int8Weight(torch.tensor([[[3, -127]]], dtype=torch.int8), torch.tensor([0.5]), torch.tensor([0.25]))
    assert save_int8(path, {"layer1.0.conv": weight}) == tmp_path / "sparse.int8.safetensors"
    (loaded,) = load_int8(path).items()
    assert loaded[0] == "layer1.0.conv"
    assert all(torch.equal(getattr(loaded[1], part), value) for part, value in vars(weight).items())

    save_checkpoint(path, {"a": STATE["a"] + 1}, {})
    with pytest.raises(ModelError, match="belongs to other weights than sparse"):
        load_int8(path)


class Misbuilt:
    """Pickles as a tensor whose strides are no tuple."""

    def __reduce__(self):
        storage = torch.zeros(4).storage()
        return torch._utils._rebuild_tensor_v2, (storage, 0, (2, 2), 1, False, OrderedDict())


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_tensor_that_cannot_be_built(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"conv.weight": Misbuilt()}, path)
    with pytest.raises(ModelError, match="not a PyTorch checkpoint"):
        load_checkpoint(path)
