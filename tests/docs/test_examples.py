"""The examples in docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

from tests.support.modules import FILES, ROOMS, module_of

MODULES = [module_of(name) for path, name in FILES.items() if ">>> " in path.read_text()]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may write files
    module = importlib.import_module(name)
    assert any(found.examples for found in doctest.DocTestFinder().find(module))  # those to skip included
    assert not doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed


@pytest.mark.parametrize("room", [room for room in ROOMS if not room.startswith("sparsegpt_cli")])
def test_every_public_function_of_a_library_has_an_example(room):
    face = importlib.import_module(room)
    functions = [getattr(face, name) for name in getattr(face, "__all__", ())]
    functions = [function for function in functions if inspect.isfunction(inspect.unwrap(function))]
    assert [function.__name__ for function in functions if ">>> " not in (function.__doc__ or "")] == []
