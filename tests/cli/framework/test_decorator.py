"""Groups of options become flags, and come back as groups."""

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from sparsegpt_cli.framework import command
from sparsegpt_cli.terminal import Console


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, typer.Option(min=1)] = 1


@dataclass(frozen=True)
class Outer:
    name: Annotated[str, typer.Option()] = "a"
    inner: Inner = field(default_factory=Inner)


@pytest.fixture
def run():
    """Run a command with both groups; returns what it was given, or its help."""
    given = []

    @command
    def show(console: Console, *, outer: Outer = Outer(name="b", inner=Inner(2))) -> None:
        given.append(outer)

    app = typer.Typer(rich_markup_mode=None)
    app.command()(show)

    def start(*arguments):
        outcome = CliRunner().invoke(app, arguments)
        return outcome.output if outcome.exit_code or "--help" in arguments else given.pop()

    return start


def test_fields_of_nested_groups_are_flags(run):
    assert run("--name", "c", "--size", "5") == Outer("c", Inner(5))
    assert "Invalid value for '--size'" in run("--size", "0")


def test_the_default_of_a_group_is_that_of_its_flags(run):
    assert run() == Outer("b", Inner(2))
    assert "[default: 2; x>=1]" in run("--help")
