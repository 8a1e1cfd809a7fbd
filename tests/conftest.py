"""Fixtures that several test files share."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.machine import find_backend
from sparsegpt_core.errors import MissingDependencyError
from tests.support.paths import ROOT

pytest_plugins = ["tests.support.engines", "tests.support.reports"]
"""Modules whose fixtures serve several rooms."""

# Polygraphy serves one backend per process and reads which when it is first imported: choose before any test does.
with contextlib.suppress(MissingDependencyError):
    find_backend()


def pytest_runtest_setup() -> None:
    """torch.onnx builds its table of operators in each export, and that takes longest: keep the table."""
    registration = sys.modules.get("torch.onnx._internal.exporter._registration")
    registry = getattr(registration, "ONNXRegistry", None)
    if registry is not None and not hasattr(registry.from_torchlib, "cache_info"):
        registry.from_torchlib = staticmethod(functools.cache(registry.from_torchlib))


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        content = json.loads(self.out)
        assert isinstance(content, dict)
        return content


def run_here(*arguments: object) -> Outcome:
    """Run a command in this process, for fixtures of a wider scope than ``cli``."""
    from sparsegpt_cli.app import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run a command in this process; returns an Outcome."""
    from sparsegpt_cli.app import main

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def program(tmp_path):
    """Run the program in a process of its own; ``without`` makes modules unimportable."""

    def run(*arguments: object, without: tuple[str, ...] = (), **options: Any) -> Outcome:
        stubs = tmp_path / "stubs"
        stubs.mkdir(exist_ok=True)
        for name in without:
            (stubs / f"{name}.py").write_text(f"raise ImportError('{name} is not installed', name='{name}')\n")
        environment = {**os.environ, "PYTHONPATH": f"{stubs}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-m", "sparsegpt_cli", *(str(argument) for argument in arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **options)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def digits_checkpoint(tmp_path_factory) -> Path:
    """``simple_cnn`` trained on the digits for a few epochs."""
    from calibration.training import TrainSettings
    from sparsegpt_cli.jobs.datasets import DataSource
    from sparsegpt_cli.jobs.models import ModelSource
    from sparsegpt_cli.jobs.training import train_model
    from sparsegpt_cli.terminal import Console

    path = tmp_path_factory.mktemp("checkpoint") / "simple_cnn.safetensors"
    settings = TrainSettings(epochs=6, batch_size=64, learning_rate=0.03, precision="fp32", augment="none")
    train_model(ModelSource("simple_cnn"), DataSource("digits"), settings, path, Console(quiet=True))
    return path


@pytest.fixture
def random_images(tmp_path) -> Path:
    """An npz file of 8 random 32×32 images without labels."""
    path = tmp_path / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    np.savez(path, images=images)
    return path
