"""The pictures of a sweep: those that the grid has numbers for, legible, and the same for the same numbers."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import product

import pytest

from sparsegpt_cli.sweep.methods import METHODS
from sparsegpt_cli.sweep.pictures import draw
from sparsegpt_cli.terminal import summary_table
from tests.support.sweeps import tables


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def texts(path):
    return [element.text for element in ElementTree.parse(path).iter() if element.tag.endswith("}text")]


SHOWN = ("top-1 lost", "changed class")
FULL = {
    "checkpoints": (("early", "cnn", 80.0), ("net", "cnn", 90.0), ("other", "torchvision:x", 70.0)),
    "methods": tuple(METHODS),
    "sizes": (32, 256, 2048),
}


def test_a_full_grid_has_every_picture(tmp_path):
    written = draw(tmp_path, *tables(**FULL))
    checkpoints, kinds = ("early", "net", "other"), ("layers", "samples", "sensitivity")
    of_each = [f"{kind}-{name}.svg" for kind, name in product(kinds, checkpoints)]
    assert names(tmp_path) == sorted([*of_each, "sparsity.svg", "training-cnn.svg"])
    assert sorted(path.name for path in written) == names(tmp_path)
    for path in written:
        root = ElementTree.parse(path).getroot()
        assert float(root.get("width").removesuffix("pt")) / 0.75 <= 761  # CSS pixels
        assert "dc:date" not in path.read_text()
    assert {"early", "net", *METHODS, "80.00 %", "90.00 %"} <= set(texts(tmp_path / "training-cnn.svg"))
    assert {"2:4", "free", "50 %", "90 %"} <= set(texts(tmp_path / "sparsity.svg"))
    titles = {f"net, {pattern}: {what}" for pattern, what in product(("2:4", "unstructured 90 %"), SHOWN)}
    assert {"32", "256", "2048", *titles} <= set(texts(tmp_path / "samples-net.svg"))


def test_the_same_figures_give_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        draw(tmp_path / folder, *tables(sizes=(8, 16)))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ({}, ["layers-net.svg", "sensitivity-net.svg", "sparsity.svg"]),
        ({"methods": ("magnitude",)}, ["sparsity.svg"]),
        ({"methods": ("cnn-sparsegpt",)}, ["layers-net.svg", "sparsity.svg"]),
        (
            {"methods": ("best",), "sizes": (8, 16)},
            ["layers-net.svg", "samples-net.svg", "sensitivity-net.svg", "sparsity.svg"],
        ),
        ({"checkpoints": ()}, []),
    ],
)
def test_only_pictures_with_data_are_drawn(tmp_path, grid, expected):
    (tmp_path / "training-gone.svg").touch()  # of an earlier grid
    (tmp_path / "mine.svg").touch()
    draw(tmp_path, *tables(**grid))
    assert names(tmp_path) == sorted([*expected, "mine.svg"])


def test_disagreement_is_drawn_without_labels(tmp_path):
    rows, layers = tables(labelled=False)
    draw(tmp_path, rows, layers)
    assert "images that changed class, % (logarithmic)" in texts(tmp_path / "sparsity.svg")
    assert summary_table(rows).row_count == 3


def test_sizes_show_disagreement_without_labels(tmp_path):
    draw(tmp_path, *tables(sizes=(8, 16), labelled=False))
    drawn = texts(tmp_path / "samples-net.svg")
    assert "net, 2:4: changed class" in drawn
    assert "net, 2:4: top-1 lost" not in drawn


def test_the_worst_of_very_many_layers_are_shown(tmp_path):
    rows, layers = tables(layers=[f"block{number}.conv" for number in range(150)], seeds=(0,))
    worst = max((row for row in layers if row["pattern"] == "2:4"), key=lambda row: row["magnitude_error"] or 0)
    draw(tmp_path, rows, layers)
    shown = texts(tmp_path / "layers-net.svg")
    assert worst["layer"] in shown
    assert sum(text.startswith("block") for text in shown) == 60
    assert any("the 60 of 150 layers" in text for text in shown)


def test_names_from_files_are_text(tmp_path):
    hostile = "<script>alert(1)</script>&$x_1$"
    long = "a-very-" * 12 + "long-name"
    rows, layers = tables(
        checkpoints=((hostile, "cnn", 1.0), (long, "cnn", 2.0)), layers=(hostile, long), sizes=(8, 256)
    )
    for path in draw(tmp_path, rows, layers):
        assert "<script" not in path.read_text()
        assert path.parent == tmp_path
        assert all(len(text) < 100 for text in texts(path))
    assert hostile in texts(tmp_path / f"layers-{'-script-alert-1-script-x_1-'}.svg")


def test_layers_without_error_are_drawn(tmp_path):
    rows, layers = tables()
    for row in layers:
        row["relative_error"] = row["magnitude_error"] = 0.0
    for row in rows:
        row["difference"] = 0.0
    assert len(draw(tmp_path, rows, layers)) == 3


@pytest.mark.parametrize("higher", [True, False])
def test_a_metric_stands_in_place_of_top1(tmp_path, higher):
    """One point higher is one point lost where lower is better."""
    rows, layers = tables(**FULL)
    for row in rows:
        dense = row["dense_top1"] / 100
        versions = {"dense": {"value": dense}, "sparse": {"value": dense + (-0.25 if higher else 0.25)}}
        row["metrics"] = {"miou": {"higher_is_better": higher, "versions": versions}}
        row |= {"difference": None, "disagreement": None, "dense_top1": None}
    draw(tmp_path, rows, layers)
    assert "miou lost (logarithmic)" in texts(tmp_path / "sparsity.svg")
    assert {"early", "0.8", "0.9"} <= set(texts(tmp_path / "training-cnn.svg"))
    assert any("its dense miou" in text for text in texts(tmp_path / "training-cnn.svg") if text)
    assert "net, 2:4: miou lost" in texts(tmp_path / "samples-net.svg")
    assert "0.3" in texts(tmp_path / "sparsity.svg")  # a loss, and so above zero
    assert "−0.3" not in texts(tmp_path / "sparsity.svg")
    table = summary_table(rows)
    assert [column.header for column in table.columns][3:] == ["miou, 2:4", "miou, 0.9"]
    assert str(next(table.columns[3].cells)) == ("-0.25" if higher else "+0.25")
