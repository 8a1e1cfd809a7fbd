"""What library messages call settings, and words that nobody should have to read twice."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from sparsegpt_cli.app import app
from tests.support.modules import FILES
from tests.support.paths import ROOT

SETTING = re.compile(r"(?<!`)`([a-z][a-z0-9_]*)(?:=[^`]*)?`(?!`)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FORBIDDEN = re.compile(r"\b(whatever|anew|of which|for want of|likewise|amid|nought|goes on behind|be it)\b", re.I)
GENERATED = ("docs/errors.md",)  # from tests/support/error_rows
PAGES = [
    name
    for name in subprocess.check_output(["git", "ls-files", "*.py", "*.md", "*.j2"], cwd=ROOT, text=True).split()
    if not name.startswith("tests/") and name not in GENERATED
]


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a module but for its docstrings."""
    tree = ast.parse(path.read_text())
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def library_messages() -> list[tuple[str, str]]:
    libraries = {path: name for path, name in FILES.items() if name.parts[0] != "sparsegpt_cli"}
    return [(f"{name}:{line}", text) for path, name in libraries.items() for line, text in messages(path)]


def test_settings_in_messages_are_options_of_a_command():
    group = typer.main.get_command(app)
    options = {
        option.removeprefix("--").replace("-", "_")
        for command in group.commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    named = [(where, name) for where, text in library_messages() for name in SETTING.findall(text)]
    assert len(named) > 20
    assert [found for found in named if found[1] not in options] == []


def test_libraries_name_settings_and_not_flags():
    """Command lines in backticks, of ours and of others, are not settings."""
    texts = [(where, re.sub(r"`[^`]*`", "", SETTING.sub("", text))) for where, text in library_messages()]
    # A text that is a flag is an argument of another program.
    assert [found for found in texts if FLAG.search(found[1]) and not found[1].startswith("--")] == []


@pytest.mark.parametrize("name", PAGES)
def test_words_that_need_a_second_reading(name):
    lines = (ROOT / name).read_text().splitlines()
    assert [f"{number}: {line}" for number, line in enumerate(lines, 1) if FORBIDDEN.search(line)] == []
