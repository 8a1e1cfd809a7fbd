"""A terminal of some width."""

import io
import re
import sys

import pytest

from sparsegpt_cli.terminal import Console


class Terminal(io.StringIO):
    """A terminal that keeps what it was sent."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Return the text that a terminal of some width shows of a result."""

    def show(columns, lines):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "stdout", Terminal())
        Console().result({}, lines)
        return re.sub("\x1b\\[[0-9;]*m", "", sys.stdout.getvalue())

    return show
