"""The Python of the guides; the guide that needs no data of the reader's runs as it stands."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.support.paths import ROOT

TOOLS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
GUIDES = ROOT / "docs" / "guides"


def python(page: str) -> str:
    """The one block of Python in a guide."""
    (block,) = re.findall(r"^ *```python\n(.*?)^ *```", (GUIDES / page).read_text(), re.DOTALL | re.MULTILINE)
    return textwrap.dedent(block)


def test_the_guide_to_metrics_and_loaders_runs(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("mine.py").write_text(python("metric-and-loader.md"))
    page = (GUIDES / "metric-and-loader.md").read_text().replace("\\\n", "")
    commands = re.findall(r"^sparsegpt-trt (.*)$", page, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["prune-export", "benchmark"]
    for command in commands:
        outcome = cli(*shlex.split(command), "--json")
        assert outcome.code == 0, outcome.err
        assert "recall" in outcome.json["metrics"]
    assert Path("out/report.html").is_file()


def test_the_guide_to_segmentation_saves_images_and_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for part in ("train", "val"):
        for folder, mode, name in (("images", "RGB", "1.jpg"), ("maps", "L", "1.png")):
            Path(part, folder).mkdir(parents=True)
            Image.new(mode, (40, 30), 7 if mode == "L" else (9, 9, 9)).save(Path(part, folder, name))
    Path("maps.py").write_text(python("segmentation.md"))
    runpy.run_path("maps.py")
    for part in ("train.npz", "val.npz"):
        saved = np.load(part)
        assert (saved["images"].shape, saved["labels"].shape) == ((1, 3, 256, 256), (1, 256, 256))
        assert (saved["labels"] == 7).all()


@pytest.mark.parametrize("page", sorted(GUIDES.glob("*.md")), ids=lambda page: page.name)
def test_scripts_and_configurations_are_well_formed(page: Path):
    blocks = re.findall(r"^( *)```(\w+)\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    for indent, language, text in blocks:
        block = re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
        if language == "yaml":
            assert all(yaml.safe_load_all(block))
        if language == "bash":
            checked = subprocess.run(
                [shutil.which("shellcheck", path=TOOLS), "-"], input=block, capture_output=True, text=True, check=False
            )
            assert checked.returncode == 0, checked.stdout
