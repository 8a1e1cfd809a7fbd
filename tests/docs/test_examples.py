"""The examples in docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.support.paths import ROOT

PACKAGES = ("sparsegpt_core", "calibration", "export", "deploy", "sparsegpt_cli")
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may write files
    module = importlib.import_module(name)
    assert any(found.examples for found in doctest.DocTestFinder().find(module))  # those to skip included
    assert not doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed
