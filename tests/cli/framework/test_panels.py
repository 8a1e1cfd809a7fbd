"""The help of commands: in panels, within a screen, and nothing cut off."""

import os
import re
import subprocess
import sys

import pytest
import typer

from sparsegpt_cli.app import app
from sparsegpt_cli.framework import PANELS, panel_of
from tests.support.paths import ROOT

COMMANDS = typer.main.get_command(app).commands


@pytest.fixture
def usage(cli, monkeypatch):
    """Return the help of a command on a terminal of some width."""

    def show(name: str, columns: int = 100, option: str = "--help") -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        return cli(name, option).out

    return show


def options_in(text: str) -> list[str]:
    return re.findall(r"^  (--[a-z][a-z0-9-]*)", text, re.MULTILINE)


def headings_in(text: str) -> list[str]:
    return re.findall(r"^([A-Z][a-z]+):$", text, re.MULTILINE)


def test_the_main_command_explains_itself_within_one_screen(usage):
    assert len(usage("prune-export").splitlines()) <= 50


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_cut_off(usage, name, columns):
    text = usage(name, columns, "--help-all")
    assert max(map(len, text.splitlines())) <= columns
    joined = "".join(text.split())
    for each in (COMMANDS[name], *COMMANDS[name].params):
        assert "".join((each.help or "").split()) in joined


@pytest.mark.parametrize("name", COMMANDS)
def test_all_options_are_in_the_long_help_and_those_for_experts_only_there(usage, name):
    command = COMMANDS[name]
    options = {each.opts[0]: panel_of(each) for each in command.params if each.param_type_name == "option"}
    short, long = usage(name), usage(name, option="--help-all")
    assert {*options_in(long)} == {*options, "--help"}
    assert {*options_in(short)} == {option for option, panel in options.items() if panel != "Expert"} | {"--help"}
    if "Expert" in options.values():
        assert f"{[*options.values()].count('Expert')} more" in short
    else:
        assert short == long


@pytest.mark.parametrize("name", COMMANDS)
def test_panels_have_one_order(usage, name):
    found = headings_in(usage(name, option="--help-all"))
    assert found == [panel for panel in PANELS if panel in found]


def test_every_name_in_a_panel_is_an_option():
    options = {option for command in COMMANDS.values() for each in command.params for option in each.opts}
    assert [name for names in PANELS.values() for name in names if f"--{name}" not in options] == []


def test_a_default_names_its_source(usage):
    text = " ".join(usage("prune-export", option="--help-all").split())
    assert "Fit the kept weights exactly to the mask. [default: by --quality]" in text
    assert "[default: this machine's, else a100]" in text


def complete(line: str) -> list[str]:
    """What bash offers at the end of a line."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "_SPARSEGPT_TRT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    program = "import sys; sys.argv[0] = 'sparsegpt-trt'; from sparsegpt_cli.app import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_the_shell_completes_commands_options_and_values():
    assert complete("sparsegpt-trt prune") == ["prune-export", "prune"]
    assert "--max-disagreement" in complete("sparsegpt-trt prune-export --max")
    assert complete("sparsegpt-trt prune-export --quality ") == ["fast", "balanced", "best"]
    assert "orin-nx" in complete("sparsegpt-trt predict net.onnx --gpu orin")
