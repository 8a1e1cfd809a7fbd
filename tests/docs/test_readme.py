"""The documents say what the program does."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest

from sparsegpt_core.reasons import Reason
from tests.support.paths import ROOT

TEXTS = (ROOT / "README.md", ROOT / "docker" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)  # a list may hold a block
CALL = re.compile(r"(?:\bsparsegpt-trt|-m sparsegpt_cli) (?!sparsegpt-trt)([a-z][a-z-]*\b[^\n|&>;)]*)")


def examples(path: Path) -> list[str]:
    """The calls of this program in a page's blocks of commands, each as one line without the program's name."""
    blocks = [
        textwrap.dedent(text)
        for language, text in BLOCK.findall(path.read_text())
        if language in ("", "console", "yaml")
    ]
    commands = re.sub(r" *\\?\n +", " ", "\n".join(blocks))  # lines that go on
    return [re.sub(r"\s+#.*", "", call).strip() for call in CALL.findall(commands)]


EXAMPLES = list(dict.fromkeys(example for path in TEXTS for example in examples(path)))


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_use_options_that_exist(cli, example):
    command, *arguments = shlex.split(example)
    usage = cli(command, "--help-all").out
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    assert [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", usage)] == []


@pytest.mark.parametrize("page", ["README.md", "docs/get-started.md"])
def test_the_first_pages_have_the_main_commands(page):
    named = {shlex.split(example)[0] for example in examples(ROOT / page)}
    assert named >= {"train", "prune-export", "verify", "build", "benchmark", "report"}


def test_every_reason_code_is_documented():
    text = (ROOT / "docs" / "reasons.md").read_text()
    assert all(f"`{reason.value}`" in text for reason in Reason)


def test_the_map_of_the_house_names_what_exists():
    text = (ROOT / "docs" / "house.md").read_text()
    paths = re.findall(r"`((?:sparsegpt_core|calibration|export|deploy|sparsegpt_cli)/[\w/]+(?:\.py)?/?)`", text)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for package in ("sparsegpt_core", "calibration", "export", "deploy", "sparsegpt_cli"):
        section = text[text.index(f"## `{package}`") :].partition("\n## ")[0]
        rooms = [path.parent.name for path in (ROOT / package).glob("*/__init__.py")]
        assert [room for room in rooms if f"`{room}`" not in section] == []
