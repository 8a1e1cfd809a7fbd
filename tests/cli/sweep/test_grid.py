"""The cells of a grid, the settings of the methods, and the files of the cells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.accuracy.arms import _PLAIN
from sparsegpt_cli.options import PruneOptions
from sparsegpt_cli.sweep import Grid
from sparsegpt_cli.sweep.cell_store import CellStore
from sparsegpt_cli.sweep.grid import Cell, checkpoint_name
from sparsegpt_cli.sweep.methods import METHODS, settings_for, workflow_for
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import json_digest
from sparsegpt_core.patterns import NM, parse_pattern
from sparsegpt_core.quality import Quality
from sparsegpt_core.settings import PruneSettings

NET = Path("net.safetensors")
IDENTITY = {"checkpoint_sha256": "ab", "pattern": "2:4", "settings": {"alpha": 1.0}}
OUTCOME = {"result": {"kl": 0.1}}


def grid(**axes):
    usual = {"checkpoints": [NET], "methods": ["best"], "patterns": ["2:4"], "samples": [8], "seeds": [0]}
    return Grid(**{**usual, **axes})


def test_the_grid_of_the_experiments():
    methods = list(METHODS)
    patterns = ["2:4", "1:4", "4:8", "2:8", "0.5", "70%", "0.9"]
    cells = grid(
        checkpoints=[NET, Path("other.pt")], methods=methods, patterns=patterns, samples=[32, 2048], seeds=[0, 1, 2]
    ).cells()
    assert len(cells) == 2 * 7 * (1 + 4 * 2 * 3) == len({cell.key for cell in cells})
    assert cells[0] == Cell("net", "magnitude", "2:4")
    assert all((cell.samples is None) == (cell.method == "magnitude") for cell in cells)
    assert {cell.pattern for cell in cells} == {"2:4", "1:4", "4:8", "2:8", "0.5", "0.7", "0.9"}
    seeds = [cell.seed for cell in cells if cell.seed is not None]
    assert seeds == sorted(seeds)  # one seed's whole grid is there before the next one's


def test_equal_cells_are_listed_once():
    assert grid(methods=["best", "best"], patterns=["0.5", "50%"], checkpoints=[NET, NET]).cells() == [
        Cell("net", "best", "0.5", 8, 0)
    ]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"methods": ["balance"]}, "unknown method 'balance'"),
        ({"methods": []}, "--method is missing"),
        ({"checkpoints": []}, "--weights is missing"),
        ({"patterns": ["4:2"]}, "pattern 4:2"),
        ({"patterns": ["half"]}, "unknown pattern 'half'"),
        ({"checkpoints": [Path("a/net.pt"), Path("b/net.pt")]}, "2 checkpoints are called net"),
    ],
)
def test_an_invalid_grid_is_refused(axes, message):
    with pytest.raises(InputError, match=message) as raised:
        grid(**axes)
    assert raised.value.hint


def test_the_nearest_method_is_named():
    with pytest.raises(InputError) as raised:
        grid(methods=["balance"])
    assert "Did you mean balanced?" in raised.value.hint


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1), min_size=1, max_size=3))
def test_keys_are_valid_file_names(tmp_path_factory, names):
    folder = tmp_path_factory.getbasetemp()
    for name in names:
        key = Cell(checkpoint_name(folder / name), "best", "0.5", 32, 1).key
        assert (folder / key).parent == folder
        assert len(key.encode()) < 200
        assert checkpoint_name(folder / name).isprintable()


def test_names_that_are_not_unicode_can_be_printed():
    name = checkpoint_name(Path("caf\udce9\n.pt"))
    assert name == "caf��"
    assert "\udce9" not in Cell(name, "best", "2:4", 8, 0).key


def test_best_and_balanced_are_the_presets():
    for quality in ("balanced", "best"):
        options = PruneOptions(quality=quality, permute_seconds=workflow_for(quality).permute_seconds)
        assert Quality(settings_for(quality, NM(2, 4)), workflow_for(quality)) == options.quality_settings()


def test_sparsegpt_is_as_published():
    assert settings_for("sparsegpt", NM(1, 4)) == PruneSettings(pattern=NM(1, 4), **_PLAIN)
    assert settings_for("magnitude", parse_pattern("0.5")).method == "magnitude"


def test_the_store_returns_what_was_written(tmp_path):
    store = CellStore(tmp_path / "cells")
    assert store.read("key", IDENTITY) is None
    store.write("key", IDENTITY, OUTCOME)
    assert store.read("key", IDENTITY) == {"identity": IDENTITY, **OUTCOME}
    assert store.path("key", IDENTITY).name.startswith("key_")
    assert not store.damaged


def test_cells_with_other_settings_are_kept_too(tmp_path):
    store = CellStore(tmp_path)
    other = {**IDENTITY, "checkpoint_sha256": "cd"}
    store.write("key", IDENTITY, OUTCOME)
    assert store.read("key", other) is None
    assert not store.damaged
    assert store.changed("key", other) == {"checkpoint_sha256"}
    assert store.changed("ke", other) == set()
    store.write("key", other, {"error": "no", "hint": ""})
    assert store.read("key", IDENTITY) == {"identity": IDENTITY, **OUTCOME}
    store.path("key", IDENTITY).rename(store.path("key", other))
    assert store.read("key", other) is None
    assert store.damaged == [store.path("key", other)]


DAMAGES = {
    "empty": lambda text: b"",
    "truncated": lambda text: text[:-20],
    "no JSON": lambda text: b"\0" * len(text),
    "no UTF-8": lambda text: b'{"a": "\xff"}',
    "another kind": lambda text: b"[1, 2]",
    "a number": lambda text: b"3",
    "a changed figure": lambda text: text.replace(b"0.1", b"0.2"),
    "no digest": lambda text: json.dumps({"identity": IDENTITY, **OUTCOME}).encode(),
    "too deep": lambda text: b"[" * 100_000,
    "NaN": lambda text: text.replace(b"0.1", b"NaN"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cells_are_not_used(tmp_path, damage):
    store = CellStore(tmp_path)
    store.write("key", IDENTITY, OUTCOME)
    path = store.path("key", IDENTITY)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert store.read("key", IDENTITY) is None
    assert store.damaged == [path]
    store.write("key", IDENTITY, OUTCOME)
    assert store.read("key", IDENTITY) is not None


def test_a_folder_in_place_of_a_cell_is_damage(tmp_path):
    store = CellStore(tmp_path)
    store.path("key", IDENTITY).mkdir()
    assert store.read("key", IDENTITY) is None
    assert store.damaged


@given(st.dictionaries(st.text(), st.floats(allow_nan=False) | st.integers() | st.lists(st.text()), max_size=4))
def test_a_digest_survives_the_disk(content):
    assert json_digest(content) == json_digest(json.loads(json.dumps(content)))
