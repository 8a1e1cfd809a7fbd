"""A user's own loader: whatever it gives becomes images and labels, and what it cannot give is one line."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from calibration.data import loaders as module
from calibration.data import names_code, open_data
from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
from sparsegpt_core.errors import DataError, SparseGPTError

CODE = """
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

IMAGES = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 10

class Map(Dataset):
    def __len__(self): return 20
    def __getitem__(self, index): return IMAGES[index], int(LABELS[index])

class Stream(IterableDataset):
    def __iter__(self): return iter(zip(IMAGES, LABELS))

class Pictures(Map):
    def __getitem__(self, index):
        return Image.fromarray((255 * IMAGES[index, 0].numpy()).astype(np.uint8)), int(LABELS[index])

dataset = Map()
loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8)
def function(): return DataLoader(Map(), batch_size=6)
def stream(): return Stream()
def pictures(): return Pictures()
def dicts(): return DataLoader([{"image": i, "label": l} for i, l in zip(IMAGES, LABELS)], batch_size=8)
def generator():
    for start in range(0, 20, 5):
        yield IMAGES[start:start + 5].numpy(), LABELS[start:start + 5].tolist()
def lists(): return [(IMAGES[start:start + 5].tolist(), LABELS[start:start + 5].tolist()) for start in range(0, 20, 5)]
def alone(): return IMAGES.split(7)
def batches(): return [list(IMAGES[:3]), list(IMAGES[3:])]
def half(): return [IMAGES.bfloat16()]
def boxes(): return [(image, {"boxes": torch.zeros(2, 4)}) for image in IMAGES]
def maps(): return [{"images": IMAGES, "labels": IMAGES}]

def fails(): raise ValueError("no disk")
def leaves(): raise SystemExit(3)
def breaks():
    yield IMAGES[:2]
    raise RuntimeError("worker died")
def nothing(): return []
def number(): return 5
def flat(): return [torch.zeros(8, 8)]
def text(): return ["cat"]
def sizes(): return [torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 9, 9)]
def keys(): return [{"picture": IMAGES}]
def endless():
    while True: yield IMAGES
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "loaders_of_test.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("loaders_of_test", None)


def arrays(name):
    """The images and labels of a loader in the order of its source."""
    data = open_data(f"loaders_of_test:{name}")
    images, labels = next(iter(data.training.batches(100)))
    source = sys.modules["loaders_of_test"].IMAGES.numpy()
    order = [int(np.abs(source - image).sum(axis=(1, 2, 3)).argmin()) for image in images[:, :1]]
    assert sorted(order) == list(range(20))
    return images[np.argsort(order)], None if labels is None else labels[np.argsort(order)]


@pytest.mark.parametrize("name", ["dataset", "loader", "function", "stream", "dicts", "generator", "lists", "Map"])
def test_images_and_labels_are_those_of_the_loader(folder, name):
    images, labels = arrays(name)
    np.testing.assert_array_equal(images, sys.modules["loaders_of_test"].IMAGES.numpy())
    np.testing.assert_array_equal(labels, np.arange(20) % 10)


@pytest.mark.parametrize(("name", "tolerance"), [("alone", 0), ("batches", 0), ("boxes", 0), ("half", 0.01)])
def test_images_alone_have_no_labels(folder, name, tolerance):
    images, labels = arrays(name)
    np.testing.assert_allclose(images, sys.modules["loaders_of_test"].IMAGES.numpy(), atol=tolerance)
    assert labels is None


@pytest.mark.parametrize("name", ["boxes", "maps"])
def test_labels_that_are_no_classes_are_left_out_and_a_note_says_so(folder, name):
    data = open_data(f"loaders_of_test:{name}")
    assert data.training.labels is None
    assert data.notes == (
        f"loaders_of_test:{name}'s labels are not used: they are not one class number for each image",
    )


def test_pictures_of_pil_are_bytes_of_three_channels(folder):
    images, labels = arrays("pictures")
    assert images.shape == (20, 3, 8, 8)
    np.testing.assert_allclose(images[:, :1], sys.modules["loaders_of_test"].IMAGES.numpy(), atol=1 / 255)
    np.testing.assert_array_equal(labels, np.arange(20) % 10)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", "loaders_of_test:fails failed: ValueError: no disk"),
        ("leaves", "loaders_of_test:leaves failed: SystemExit: 3"),
        ("breaks", "loaders_of_test:breaks failed: RuntimeError: worker died"),
        ("nothing", "loaders_of_test:nothing gives no images"),
        ("number", "loaders_of_test:number failed: TypeError: 'int' object is not iterable"),
        ("flat", "loaders_of_test:flat gives a Tensor of shape (8, 8)"),
        ("text", "loaders_of_test:text gives a str of shape ()"),
        ("sizes", "loaders_of_test:sizes gives images of shapes (1, 8, 8) and (1, 9, 9)"),
        ("keys", "loaders_of_test:keys gives a dict of picture"),
        ("missing", "loaders_of_test has no missing"),
    ],
)
def test_what_a_loader_cannot_give_is_one_line(folder, name, message):
    with pytest.raises(SparseGPTError) as error:
        open_data(f"loaders_of_test:{name}")
    assert str(error.value) == message


def test_a_loader_without_end_is_cut_off_and_says_so(folder, monkeypatch):
    monkeypatch.setattr(module, "_MAX_IMAGES", 50)
    data = open_data("loaders_of_test:endless")
    assert len(data.training) == 60
    assert data.notes == ("loaders_of_test:endless gives more images than are kept in memory: its first 60 are used",)


def test_a_mistyped_kind_of_data_runs_no_code():
    assert not names_code("imagefolder:x")
    with pytest.raises(DataError, match="unknown data 'imagefoldr:photos'"):
        open_data("imagefoldr:photos")


def test_a_loader_calibrates_and_another_evaluates(folder, cli, digits_checkpoint):
    options = ("--data", "loaders_of_test:loader", "--eval-data", "./loaders_of_test.py:generator", "--no-baseline")
    command = (
        "prune-export",
        "--layers=all",
        "--weights",
        digits_checkpoint,
        "--quality",
        "fast",
        "--out",
        folder / "out",
        *options,
    )
    outcome = cli(*command)
    assert outcome.code == 1  # both give the same images
    assert "importing and running loaders_of_test:loader" in outcome.err
    assert "importing and running ./loaders_of_test.py:generator" in outcome.err
    code = folder / "loaders_of_test.py"
    (folder / "others.py").write_text(code.read_text().replace("manual_seed(0)", "manual_seed(1)"))
    outcome = cli(*[str(each).replace("./loaders_of_test.py", "others") for each in command])
    assert outcome.code == 0, outcome.err
    assert "mean 0 (the default of the data), std 1 (the default of the data)" in outcome.err
    assert load_checkpoint(folder / "out" / "sparse.safetensors").metadata["data"] == "loaders_of_test:loader"


def test_code_that_a_file_names_does_not_run(folder, cli, digits_checkpoint):
    kept = load_checkpoint(digits_checkpoint)
    save_checkpoint(folder / "net.safetensors", kept.state, {**kept.metadata, "data": "loaders_of_test:leaves"})
    outcome = cli("prune", "--layers=all", "--weights", "net.safetensors", "--out", "x.safetensors", "--quiet")
    assert outcome.code == 1
    assert outcome.err == (
        "error: the model's file records the data loaders_of_test:leaves, which is code, and a file must not make code "
        "run. Give --data loaders_of_test:leaves if you know that code.\n"
    )
    assert "loaders_of_test" not in sys.modules


def test_an_unfinished_training_ends_with_its_images(folder):
    from sparsegpt_cli.jobs.training import data_key

    first = data_key(open_data("loaders_of_test:loader"))
    sys.modules["loaders_of_test"].IMAGES[:] *= 0.5
    assert data_key(open_data("loaders_of_test:loader"))["data_sha256"] != first["data_sha256"]
