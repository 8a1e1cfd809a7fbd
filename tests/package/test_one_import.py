"""``import sparsegpt_trt`` where other packages have the names of ours."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sparsegpt_trt
from tests.support.paths import ROOT


def _run(code: str, folder) -> subprocess.CompletedProcess[str]:
    """Run code in a new process whose working directory comes before our packages."""
    environment = {"PYTHONPATH": f"{folder}:{ROOT}", "PATH": ""}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def crowded(tmp_path):
    """A folder with packages and a module of others."""
    for name in ("export", "deploy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('the {name} of others')")
    (tmp_path / "calibration.py").write_text("own = 1")
    return tmp_path


def test_the_face_is_whole():
    for name in sparsegpt_trt.__all__:
        assert getattr(sparsegpt_trt, name).__name__ == name
    with pytest.raises(AttributeError, match="prune_modle"):
        sparsegpt_trt.prune_modle  # noqa: B018


def test_packages_of_the_same_names_do_not_matter(crowded):
    code = "import sys, sparsegpt_trt as face; print(face.audit_model.__module__, face.build_engine.__module__)"
    done = _run(f"{code}; print('torch' in sys.modules)", crowded)
    assert done.stdout.split() == ["export.audit.audit", "deploy.builder.engine_build", "False"], done.stderr


def test_a_package_that_is_in_the_way_is_named(crowded):
    done = _run("import calibration, sparsegpt_trt", crowded)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: {crowded}/calibration.py hides the package 'calibration' of sparsegpt-trt: "
        "import sparsegpt_trt before it, or rename it"
    )


def test_the_command_line_starts(crowded):
    done = _run("import sparsegpt_trt, sys; sys.argv[1:] = ['--version']; sys.exit(sparsegpt_trt.main())", crowded)
    assert (done.returncode, done.stderr) == (0, "")
