"""Wrong data."""

import gzip
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.support.error_rows import check, save_good, spoil
from tests.support.error_rows.data import ROWS

IMAGES = np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32)
LABELS = np.arange(20) % 10
TWO = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 8), nn.Linear(4, 8), nn.Linear(8, 2)
    def forward(self, images, vector):
        return self.c(self.a(images.flatten(1)) + self.b(vector))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    spoil(folder, ["npz"])
    save_good(folder / "good.safetensors")
    save_good(folder / "moved.safetensors", data="npz:gone.npz")
    write_arrays(folder)
    write_inputs(folder)
    write_images(folder)
    write_named(folder)
    return folder


def write_arrays(folder):
    for name, arrays in {
        "good": {"images": IMAGES, "labels": LABELS},
        "more": {"images": IMAGES[::-1], "labels": LABELS},
        "other": {"pictures": IMAGES},
        "flat": {"images": IMAGES[0]},
        "none": {"images": IMAGES[:0]},
        "int32": {"images": IMAGES.astype(np.int32)},
        "objects": {"images": np.empty((2, 1, 1, 1), dtype=object)},
        "nan": {"images": np.full_like(IMAGES, np.nan)},
        "float16": {"images": np.full(IMAGES.shape, np.inf, dtype=np.float16)},
        "large": {"images": np.full(IMAGES.shape, 1e300)},
        "rgb": {"images": np.repeat(IMAGES, 3, axis=1)},
        "nhwc": {"images": np.repeat(IMAGES.transpose(0, 2, 3, 1), 3, axis=3)},
        "onehot": {"images": IMAGES, "labels": np.eye(10)[LABELS]},
        "from1": {"images": IMAGES, "labels": LABELS + 1},
        "few": {"images": IMAGES, "labels": LABELS[:5]},
        "negative": {"images": IMAGES, "labels": LABELS - 1},
        "many": {"images": IMAGES, "labels": np.full(20, 2**62)},
    }.items():
        np.savez(folder / f"{name}.npz", **arrays)
    whole = (folder / "good.npz").read_bytes()
    (folder / "half.npz").write_bytes(whole[: len(whole) // 2])
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 1, 8, 8), }".ljust(117) + b"\n"
    with zipfile.ZipFile(folder / "bomb.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)


def write_inputs(folder):
    """A network with two inputs, and arrays that do not fit it."""
    (folder / "two.py").write_text(TWO)
    vector = np.ones((20, 4))
    for name, arrays in {
        "two": {"images": IMAGES, "vector": vector},
        "unnamed": {"images": IMAGES, "vec": vector},
        "uneven": {"images": IMAGES, "vector": vector[:19]},
        "wide": {"images": IMAGES, "vector": np.ones((20, 5))},
        "holes": {"images": IMAGES, "vector": np.full((20, 4), np.inf)},
    }.items():
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "one_array.py").write_text("import numpy\nbatches = [numpy.ones((4, 1, 8, 8))]\n")


def write_images(folder):
    for name in ("no_images", "broken", "linked", "endless", "bomb", "thin"):
        (folder / name).mkdir()
    (folder / "broken" / "a.png").write_bytes(b"no image")
    (folder / "linked" / "a.png").symlink_to("a.png")
    (folder / "endless" / "self").symlink_to(".")
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0), b"IDAT", b"IEND"]
    packed = [struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks]
    (folder / "bomb" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    Image.new("RGB", (1, 5000)).save(folder / "thin" / "a.png")


def write_named(folder):
    for name, images in {
        "idx": struct.pack(">IIII", 2051, 20, 8, 8) + bytes(20 * 64),
        "idx_half": struct.pack(">IIII", 2051, 20, 8, 8) + bytes(20 * 32),
        "idx_text": b"hello",
        "idx_large": struct.pack(">IIII", 2051, 2**32 - 1, 2**16, 2**16),
    }.items():
        raw = folder / name
        raw.mkdir()
        (raw / "train-images-idx3-ubyte").write_bytes(images)
    (folder / "idx_gz").mkdir()
    (folder / "idx_gz" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(999))[:10])
    for name, content in {
        "cifar": {"labels": [0]},
        "cifar_code": {"data": print, "labels": [0]},
        "cifar_float": {"data": np.zeros((1, 3072)), "labels": [0]},
        "cifar_flat": {"data": np.zeros((1, 99), dtype=np.uint8), "labels": [0]},
        "cifar_half": None,
    }.items():
        batches = folder / name / "cifar-10-batches-py"
        batches.mkdir(parents=True)
        (batches / "test_batch").touch()
        (batches / "data_batch_1").write_bytes(pickle.dumps(content, protocol=3)[: None if content else 3])


@pytest.mark.parametrize("row", [row for row in ROWS if not row.test], ids=str)
def test_a_row(cli, folder, monkeypatch, row):
    check(row, cli, folder, monkeypatch)
