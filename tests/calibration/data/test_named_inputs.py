"""Inputs by name: an npz file holds one array for each input of a network, a loader gives dicts or tuples."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.data import open_data
from calibration.sampling import calibration_batches
from sparsegpt_core.errors import DataError
from sparsegpt_core.named_inputs import InputNames, NamedInputs
from sparsegpt_core.network import tensors_of

TWO = InputNames(("images", "vector", "mask"), required=2)
ARRAYS = {
    "vector": np.arange(12.0).reshape(6, 2),
    "images": np.arange(6 * 3 * 4, dtype=np.uint8).reshape(6, 3, 2, 2),
    "labels": np.array([0, 1, 2, 0, 1, 2]),
}

CODE = """
import numpy as np
I = np.arange(6, dtype=np.uint8).repeat(12).reshape(6, 3, 2, 2)
V, L = np.arange(12.0).reshape(6, 2), np.arange(6) % 3
class Samples:
    def __len__(self): return 6
    def __getitem__(self, i): return I[i], V[i], L[i]
class Dicts(Samples):
    def __getitem__(self, i): return {"vector": V[i], "images": I[i], "label": L[i]}
def tuples(): return [(I[:3], V[:3], L[:3]), (I[3:], V[3:], L[3:])]
def pairs(): return [([I, V], L)]
def named(): return [({"images": I, "vector": V}, L)]
def bare(): return [(I, V)]
def one(): return [I]
def four(): return [(I, V, L, L)]
def missing(): return [{"images": I, "vec": V}]
def uneven(): return [(I, V[:5])]
def shapes(): return [(I, V), (I, V[:, :1])]
def names(): return [{"images": I, "vector": V}, {"images": I, "vector": V, "mask": V}]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loaders.py").write_text(CODE)
    return tmp_path


def save(**arrays: np.ndarray) -> str:
    np.savez("x.npz", **arrays)
    return "npz:x.npz"


def test_arrays_are_in_the_networks_order_and_stay_as_they_are(here) -> None:
    data = open_data(save(**ARRAYS), inputs=TWO)
    ((batch, labels),) = data.training.batches(9)
    assert isinstance(batch, NamedInputs)
    assert [*batch.arrays] == ["images", "vector"]
    np.testing.assert_array_equal(batch.arrays["images"], ARRAYS["images"])
    np.testing.assert_array_equal(batch.arrays["vector"], ARRAYS["vector"])
    assert (batch.arrays["images"].dtype, batch.arrays["vector"].dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(labels, ARRAYS["labels"])
    assert (data.num_classes, data.image_shape, data.sample_size) == (3, (), 14)
    drawn = calibration_batches(data.training, 5, 3, seed=0)
    rows = [tensors_of(part) for part in drawn]
    assert [[tuple(each.shape) for each in part] for part in rows] == [[(3, 3, 2, 2), (3, 2)], [(2, 3, 2, 2), (2, 2)]]
    for images, vector in rows:  # the samples of both inputs belong together
        assert (images[:, 0, 0, 0] // 12).tolist() == (vector[:, 0] // 2).tolist()


def test_a_single_input_takes_images_where_there_are_any(here) -> None:
    single = InputNames(("tokens",), required=1)
    data = open_data(save(images=np.ones((2, 1, 2, 2)), tokens=np.ones((2, 5), int)), inputs=single)
    assert (data.image_shape, data.inputs) == ((1, 2, 2), None)
    data = open_data(save(tokens=np.ones((2, 5), int)), inputs=single)
    assert str(data.inputs) == "tokens (5,) int64"
    with pytest.raises(DataError, match="has no array 'images'"):
        open_data(save(words=np.ones((2, 5))), inputs=single)


def test_an_input_may_be_named_labels(here) -> None:
    inputs = InputNames(("images", "labels"), required=2)
    ((batch, labels),) = open_data(save(**ARRAYS), inputs=inputs).training.batches(6)
    assert labels is None
    np.testing.assert_array_equal(batch.arrays["labels"], ARRAYS["labels"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vector": None}, r"x\.npz: the network's inputs are images, vector, mask, the data has images, labels"),
        ({"vector": None, "mask": np.ones(6)}, "the data has images, labels, mask"),
        ({"vector": np.ones((5, 2))}, "differ in their number of samples: images 6, vector 5"),
        ({"vector": np.array("x")}, r"vector has shape \(\) and dtype <U1"),
        ({"labels": np.zeros(5, int)}, "5 labels for 6 images"),
    ],
)
def test_arrays_that_do_not_fit(here, changes, words) -> None:
    arrays = {name: value for name, value in {**ARRAYS, **changes}.items() if value is not None}
    with pytest.raises(DataError, match=words):
        open_data(save(**arrays), inputs=TWO)


def test_settings_of_images_are_refused(here) -> None:
    spec = save(**ARRAYS)
    for settings in ({"mean": [0.5]}, {"std": [0.5]}, {"image_size": 2}, {"channels": 3}):
        with pytest.raises(DataError, match="inputs by name, which stay as they are"):
            open_data(spec, inputs=TWO, **settings)
    with pytest.raises(DataError, match="digits has images only"):
        open_data("digits", inputs=TWO)


def test_nan_names_the_input_and_the_sample(here) -> None:
    vector = ARRAYS["vector"].copy()
    vector[4, 1] = np.nan
    data = open_data(save(**{**ARRAYS, "vector": vector}), inputs=TWO)
    with pytest.raises(DataError, match="vector of sample 4 contains NaN"):
        list(data.training.batches(2))


def test_the_splits_need_the_same_inputs(here) -> None:
    np.savez("other.npz", images=ARRAYS["images"], vector=np.ones((6, 3)))
    with pytest.raises(DataError, match=r"evaluation inputs images \(3, 2, 2\) uint8, vector \(3,\) float32"):
        open_data(save(**ARRAYS), eval_data="npz:other.npz", inputs=TWO)
    with pytest.raises(DataError, match="are the same"):
        open_data("npz:x.npz", eval_data="npz:x.npz", inputs=TWO)


@pytest.mark.parametrize("name", ["Samples", "Dicts", "tuples", "pairs", "named", "bare"])
def test_loaders(here, name) -> None:
    data = open_data(f"{here}/loaders.py:{name}", inputs=TWO)
    ((batch, labels),) = data.training.batches(6)
    order = np.argsort(batch.arrays["images"][:, 0, 0, 0])
    np.testing.assert_array_equal(batch.arrays["vector"][order], ARRAYS["vector"])
    assert batch.arrays["images"].shape == (6, 3, 2, 2)
    assert (labels is None) == (name == "bare")
    assert labels is None or labels[order].tolist() == ARRAYS["labels"].tolist()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("one", "gives 1 array, the network's inputs are images, vector, mask"),
        ("four", "gives 4 arrays"),
        ("missing", "the data has images, vec"),
        ("uneven", "images 6, vector 5"),
        ("shapes", r"gives vector of shapes \(2,\) and \(1,\)"),
        ("names", "gives images, vector and then images, vector, mask"),
    ],
)
def test_what_loaders_must_not_give(here, name, words) -> None:
    with pytest.raises(DataError, match=words):
        open_data(f"{here}/loaders.py:{name}", inputs=TWO)
