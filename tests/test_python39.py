"""Modules that run where Python is 3.9: the list in pyproject.toml is right, and they parse."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

from tests.support.modules import FILES, module_of
from tests.support.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["per-file-target-version"]


def expanded(pattern: str) -> list[str]:
    """The patterns without braces that a pattern with at most one pair of them stands for."""
    before, brace, rest = pattern.partition("{")
    choices, _, after = rest.partition("}")
    return [f"{before}{choice}{after}" for choice in choices.split(",")] if brace else [pattern]


OLD = sorted(
    {
        path
        for pattern, version in TABLE.items()
        for each in expanded(pattern)
        for path in ROOT.glob(f"{each}/*.py" if each.endswith("**") else each)
        if version == "py39"
    }
)


@pytest.mark.parametrize("path", OLD, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_parse_as_python_39(path):
    ast.parse(path.read_text(), feature_version=(3, 9))


LOADED = """
import importlib, json, pathlib, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
ours = ("sparsegpt_core", "calibration", "export", "deploy", "sparsegpt_cli")
print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] in ours]))
"""


def test_everything_that_deploy_and_the_auditor_load_is_in_the_list():
    names = [module_of(path) for path in FILES.values() if path.parts[0] == "deploy"]
    names += ["export.audit", "calibration.data"]
    output = subprocess.check_output([sys.executable, "-c", LOADED, json.dumps(names)], cwd=ROOT, text=True)
    roots = {str(ROOT / package / "__init__.py") for package in ("export", "calibration")}  # docstrings
    assert {*json.loads(output)} - roots <= {str(path) for path in OLD}
