"""The notebooks and scripts of ``examples/`` run as they stand. ``python -m tests.examples.test_examples`` runs the
notebooks, and writes them with their outputs."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MAX_BYTES = 100_000  # of a notebook with its pictures


def run(folder: Path, *arguments: str) -> str:
    """Run Python in a folder, with the commands of this environment; return what it prints."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pictures(notebook: Path) -> list[bytes]:
    """The pictures among the outputs of a notebook."""
    cells = json.loads(notebook.read_text())["cells"]
    data = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    return [base64.b64decode(each["image/png"]) for each in data if "image/png" in each]


@pytest.fixture
def folder(tmp_path):
    """A copy of the folder ``examples``."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, folder):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    copy = folder / notebook.name
    run(folder, "-m", "tests.support.notebooks", notebook.name, notebook.name)
    assert len(pictures(copy)) == len(pictures(notebook))
    assert "sparsegpt-trt: not found" not in copy.read_text()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_has_its_outputs(notebook):
    code = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert notebook.stat().st_size < MAX_BYTES
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell["outputs"] if output.get("name") == "stderr"]
    assert [
        cell["source"][0] for cell in code if "plt.show()" in cell["source"][-1] and cell["source"][0][:2] != "# "
    ] == []


def test_the_scripts_run_one_after_another(folder):
    said = run(folder, "prune_a_module.py")
    assert "sparse.fp16.onnx: 6 layers are 2:4" in said
    said = run(folder, "audit_a_folder.py")
    assert "dense.onnx: 0 of 8 layers are 2:4" in said
    assert "sparse.fp16.onnx: 6 of 8 layers are 2:4" in said
    said = run(folder, "gains_on_gpus.py", "dense.onnx")
    assert said.count("\n") == 1 + 8 + 1
    assert (folder / "gains.png").stat().st_size > 5000
    assert "exit status 0" in run(folder, "gate_in_ci.py")
    assert (folder / "out" / "report.html").is_file()


def write() -> None:
    """Run all notebooks and write them with their outputs."""
    for notebook in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(shutil.copytree(EXAMPLES, Path(temporary, "examples")))
            run(folder, "-m", "tests.support.notebooks", notebook.name, notebook.name)
            shutil.copy(folder / notebook.name, notebook)


if __name__ == "__main__":
    write()
