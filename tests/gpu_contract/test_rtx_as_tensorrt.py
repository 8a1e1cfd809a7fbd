"""Commands with the backend `tensorrt`, where TensorRT-RTX has that name: RTX 1.7 is TensorRT 11's code.

All of deploy and Polygraphy run as with TensorRT. What RTX lacks is its own: sparse kernels in the log, a filled cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from sparsegpt_core.files import sidecar_path
from tests.support.engines import conv_net
from tests.support.paths import ROOT
from tests.support.standin import environment

ALIAS = """
from tensorrt_rtx import *
__version__ = "11.4.0"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("tensorrt_rtx", reason="engines are built for real, which needs tensorrt-rtx")
    (tmp_path / "modules" / "tensorrt").mkdir(parents=True)
    (tmp_path / "modules" / "tensorrt" / "__init__.py").write_text(ALIAS)
    for name, dtype in (("single", np.float32), ("half", np.float16)):
        onnx.save(conv_net(dtype), str(tmp_path / f"{name}.onnx"))
    return tmp_path


def build(folder: Path, *arguments: str) -> tuple[int, dict, list[str]]:
    """Return the exit status, the object on standard output, and the lines on standard error."""
    command = [sys.executable, "-m", "sparsegpt_cli", "build", "--backend", "tensorrt", "--json", *arguments]
    path = f"{folder / 'modules'}:{ROOT}"
    done = subprocess.run(command, cwd=folder, env=environment(PYTHONPATH=path), capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout), done.stderr.splitlines()


def test_a_timing_cache_is_written_read_and_checked(folder: Path) -> None:
    arguments = ("half.onnx", "--out", "m.plan", "--timing-cache", "m.cache")
    status, found, said = build(folder, *arguments)
    assert status == 0, said
    assert (found["backend"], found["backend_version"], found["compute_capability"]) == ("tensorrt", "11.4.0", None)
    assert all(line.startswith(("parse ", "build ")) for line in said), said
    cache = folder / "m.cache"
    record = json.loads(sidecar_path(cache).read_text())
    assert (record["backend"], record["bytes"]) == ("tensorrt", cache.stat().st_size)
    status, _, said = build(folder, *arguments, "--force")
    assert status == 0, said
    cache.write_bytes(b"other")
    status, found, _ = build(folder, *arguments, "--force")
    assert status == 1
    assert found["hint"] == "Delete it; the next build measures again."
    assert cache.read_bytes() == b"other"


@pytest.mark.parametrize(
    "arguments",
    [
        ("single.onnx", "--opt-level", "1", "--workspace", "64MB", "--hardware", "ampere-plus"),
        ("half.onnx", "--no-sparse", "--shapes", "2/2/4", "--tactic-sources", "jit_convolutions"),
    ],
)
def test_settings_reach_the_builder(folder: Path, arguments: tuple[str, ...]) -> None:
    status, found, said = build(folder, *arguments)
    assert status == 0, said
    assert found["sparse_flag"] == ("--no-sparse" not in arguments)
    assert found["bytes"] == Path(folder, found["plan"]).stat().st_size


@pytest.mark.parametrize(("model", "reason"), [("half", "workspace"), ("unknown", "NoSuchOperator")])
def test_a_failed_build_leaves_no_plan(folder: Path, model: str, reason: str) -> None:
    onnx.save(conv_net(op="NoSuchOperator"), str(folder / "unknown.onnx"))
    status, found, said = build(folder, f"{model}.onnx", "--out", "m.plan", "--workspace", "64")
    assert status == 1
    assert reason in found["error"]
    assert found["hint"].startswith("If this names a setting, change it.")  # not that a GPU is missing
    assert said[-1] == f"error: {found['error']}. {found['hint']}"
    assert not (folder / "m.plan").exists()
