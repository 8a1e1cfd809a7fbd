"""The release: the workflow tries what pyproject.toml promises, and publishes only what was tried."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest
import yaml

from tests.support.paths import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
TRY = ROOT / ".ci" / "try-install"
TOOLS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])


@pytest.fixture(scope="module")
def jobs():
    return yaml.safe_load(WORKFLOW.read_text())["jobs"]


def commands(job) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


def test_each_python_that_the_package_names_is_tried(jobs):
    project = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert jobs["try"]["strategy"]["matrix"]["python"] == named
    assert f'requires-python = ">={named[0]}"' in project


def test_only_what_was_built_checked_and_tried_is_published(jobs):
    assert (jobs["publish"]["needs"], jobs["try"]["needs"]) == ("try", "build")
    assert jobs["publish"]["if"] == "github.event_name == 'push'"
    assert "python -m build" in commands(jobs["build"])
    assert "twine check --strict dist/*" in commands(jobs["build"])
    assert not any("run" in step for step in jobs["publish"]["steps"])


def test_only_the_last_job_may_act_for_the_project(jobs):
    """It has no token; PyPI trusts its identity. The other jobs, which run code of packages, may only read."""
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["build"]["permissions"] == jobs["try"]["permissions"] == {"contents": "read"}
    assert "secrets." not in WORKFLOW.read_text()


def test_torch_without_cuda_is_installed_as_the_guide_says(jobs):
    (line,) = re.findall(r"^pip (install torch .*whl/cpu)$", (ROOT / "docs/get-started.md").read_text(), re.MULTILINE)
    assert f"python -m pip {line}\n" in commands(jobs["try"])


@pytest.mark.parametrize(("tag", "passes"), [("v{}", True), ("v{}.1", False), ("w{}", False)])
def test_a_tag_of_another_version_stops(jobs, tag, passes, tmp_path):
    from sparsegpt_core import __version__

    (step,) = [step for step in jobs["build"]["steps"] if step.get("if") == "github.ref_type == 'tag'"]
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / f"sparsegpt_trt-{__version__}-py3-none-any.whl").touch()
    environment = {**os.environ, "GITHUB_REF_NAME": tag.format(__version__)}
    done = subprocess.run(["bash", "-c", step["run"]], cwd=tmp_path, env=environment, check=False)
    assert (done.returncode == 0) == passes


def test_the_script_has_no_mistakes():
    assert os.access(TRY, os.X_OK)
    shellcheck = shutil.which("shellcheck", path=TOOLS)
    assert shellcheck, "there is no shellcheck: pip install -e '.[dev]'"
    done = subprocess.run([shellcheck, TRY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_script_tries_what_is_installed(tmp_path):
    """Here the repository stands for the installed package, and the slow commands are left out."""
    script = re.sub(r"(?m)^(python -m pip check|sparsegpt-trt (demo|verify)|test -s ).*\n", "", TRY.read_text())
    for name, arguments in (("python", ""), ("sparsegpt-trt", "-m sparsegpt_trt")):
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(ROOT / "sparsegpt_trt" / "__init__.py")
