"""The example of docs/inputs.md runs as it stands."""

from __future__ import annotations

import re
import runpy
import shlex
import sys

from tests.support.paths import ROOT


def test_the_example_runs(tmp_path, cli, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    page = (ROOT / "docs" / "inputs.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        (tmp_path / block.split()[1]).write_text(block)
    commands = re.findall(r"^sparsegpt-trt (.*)$", page, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["prune-export", "benchmark"]
    runpy.run_path("save.py")
    for command in commands:
        outcome = cli(*shlex.split(command))
        assert outcome.code == 0, outcome.err
    assert (tmp_path / "two" / "report.html").is_file()
