"""A result is found only whole and under its own identity."""

from __future__ import annotations

import json

import pytest

from sparsegpt_core.errors import InputError
from sparsegpt_core.files import Entry, KeyedStore, changed_names

IDENTITY = {"samples": 512, "size": (1, 28)}


@pytest.fixture
def store(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.bin").write_bytes(b"weights")
    return KeyedStore(tmp_path / "records", tmp_path / "files")


def test_a_result_comes_back_under_its_identity_alone(store):
    assert store.read("a", IDENTITY) is None
    store.write("a", IDENTITY, {"loss": 0.1}, ["a.bin"])
    entry = store.read("a", IDENTITY)
    assert entry == store.entry("a")
    assert (entry.content, [*entry.files]) == ({"loss": 0.1}, ["a.bin"])
    assert store.read("a", {**IDENTITY, "samples": 513}) is None
    assert store.names() == {"a"}


def test_a_store_without_a_folder_keeps_nothing():
    store = KeyedStore(None)
    store.write("a", IDENTITY, {"loss": 0.1})
    assert (store.read("a", IDENTITY), store.names()) == (None, set())


def test_a_missing_file_is_not_recorded(store):
    with pytest.raises(InputError, match="cannot read"):
        store.write("a", IDENTITY, {}, ["b.bin"])
    assert store.names() == set()


@pytest.mark.parametrize("name", ["records/a.json", "files/a.bin"])
@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-3], lambda content: content + b" 1"])
def test_a_damaged_result_is_not_found(store, tmp_path, name, damage):
    store.write("a", IDENTITY, {"loss": 0.1}, ["a.bin"])
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    assert store.entry("a") is None
    assert store.names() == {"a"}


@pytest.mark.parametrize("record", [[], {}, {"identity": {}}, {"identity": 1, "files": []}, "text", None])
def test_a_foreign_record_is_not_found(store, record):
    store.write("a", IDENTITY, {})
    store.path("a").write_text(json.dumps(record))
    assert store.entry("a") is None


def test_changed_names_are_sorted():
    assert changed_names({"a": 1, "b": (2,), "c": 3}, {"b": [2], "c": 4, "d": 5, "e": None}) == ["a", "c", "d"]
    assert Entry({}, {}).files == {}
