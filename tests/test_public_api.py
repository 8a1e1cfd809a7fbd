"""The faces of all rooms against a committed list. ``python -m tests.test_public_api`` writes the list."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsegpt_core.files import write_json
from tests.support.modules import FILES, PACKAGES, ROOMS, module_of
from tests.support.paths import ROOT

LIST = ROOT / "tests" / "public_api.json"
WITHOUT_FACE = {"sparsegpt_cli.jobs"}
"""Each command imports the one job that it runs."""


def room_of(module: str) -> str:
    """The innermost room that holds a module; a room holds itself."""
    return max((room for room in ROOMS if module == room or module.startswith(f"{room}.")), key=len, default="")


def faces() -> dict[str, list[str]]:
    return {room: sorted(getattr(importlib.import_module(room), "__all__", [])) for room in ROOMS}


def imports(path: Path) -> Iterator[ast.ImportFrom]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node


def past_a_face(path: Path, every: bool) -> list[str]:
    """Imports of another room's module; with ``every`` false only those of names that the room's face has."""
    found, own = [], room_of(module_of(path.relative_to(ROOT)))
    for node in imports(path):
        room = room_of(node.module or "")
        if room in ("", own, *PACKAGES) or node.module == room or own.startswith(f"{room}.") or room in WITHOUT_FACE:
            continue
        public = getattr(importlib.import_module(room), "__all__", [])
        found += [f"{path}:{node.lineno}: {n.name}" for n in node.names if every or n.name in public]
    return found


def test_faces_are_those_of_the_list():
    assert faces() == json.loads(LIST.read_text())


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_keeps_its_word(room):
    """All names exist, and the docstring says what the room is for and what it may import."""
    module = importlib.import_module(room)
    for name in faces()[room]:
        assert getattr(module, name) is not None
    assert "ay import" in (module.__doc__ or ""), room


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(FILES[path]))
def test_rooms_are_entered_through_their_face(path):
    assert past_a_face(path, every=True) == []


def test_tests_and_benchmarks_enter_through_faces_too():
    files = [path for folder in ("tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert [line for path in files for line in past_a_face(path, every=False)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(FILES[path]))
def test_no_public_function_bears_its_modules_name(path):
    """``from .refit import refit`` in a face would hide the module. Commands are not imported by path."""
    if FILES[path].parts[:2] == ("sparsegpt_cli", "commands"):
        return
    names = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert path.stem not in names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_small_enough_to_know(room):
    limit = 17 if room in ("sparsegpt_cli.commands", "sparsegpt_cli.jobs") else 12
    modules = [path for path in (ROOT / room.replace(".", "/")).glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= limit


if __name__ == "__main__":
    write_json(LIST, faces())
