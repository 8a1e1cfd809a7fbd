"""The example of docs/inputs.md runs as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

from tests.support.paths import ROOT
from tests.support.standin import environment


def test_the_example_runs(tmp_path) -> None:
    page = (ROOT / "docs" / "inputs.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        (tmp_path / block.split()[1]).write_text(block)
    commands = re.findall(r"^sparsegpt-trt (.*)$", page, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["prune-export", "benchmark"]
    programs = [["save.py"], *(["-m", "sparsegpt_cli", *shlex.split(command)] for command in commands)]
    for program in programs:
        done = subprocess.run(
            [sys.executable, *program],
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "two" / "report.html").is_file()
