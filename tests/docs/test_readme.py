"""The documents say what the program does."""

import re
import shlex

import pytest

from sparsegpt_core.reasons import Reason
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^sparsegpt-trt .*$", README, flags=re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_use_options_that_exist(cli, example):
    _, command, *arguments = shlex.split(example)
    usage = cli(command, "--help").out
    options = [argument for argument in arguments if argument.startswith("--")]
    assert all(re.search(rf"{option}\b", usage) for option in options)


def test_there_are_examples_of_the_main_commands():
    named = {shlex.split(example)[1] for example in EXAMPLES}
    assert named >= {"train", "prune-export", "verify", "build", "benchmark", "report"}


def test_every_reason_code_is_documented():
    text = (ROOT / "docs" / "reasons.md").read_text()
    assert all(f"`{reason.value}`" in text for reason in Reason)


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (ROOT / link).exists(), link


def test_the_map_of_the_house_names_what_exists():
    text = (ROOT / "docs" / "house.md").read_text()
    paths = re.findall(r"`((?:sparsegpt_core|calibration|export|deploy|sparsegpt_cli)/[\w/]+(?:\.py)?/?)`", text)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for package in ("sparsegpt_core", "calibration", "export", "deploy", "sparsegpt_cli"):
        section = text[text.index(f"## `{package}`") :].partition("\n## ")[0]
        rooms = [path.parent.name for path in (ROOT / package).glob("*/__init__.py")]
        assert [room for room in rooms if f"`{room}`" not in section] == []
