"""The last line of every command is the next useful one, and it is a command that exists."""

import re
import shlex

import pytest
import typer

from sparsegpt_cli.app import app

COMMANDS = typer.main.get_command(app).commands


@pytest.fixture
def next_step(cli):
    """Return the next command that a command names."""

    def run(*arguments: object) -> list[str]:
        outcome = cli(*arguments)
        assert outcome.code == 0, outcome.err
        assert outcome.out.count("next: ") == 1
        return shlex.split(outcome.out.splitlines()[-1].removeprefix("next: "))

    return run


def test_every_command_names_the_next_one(next_step, digits_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ("--samples", 16, "--quality", "fast", "--layers", "all")
    data = ("--data", "digits")
    dense = ("--weights", digits_checkpoint)
    steps = {
        "train": ("--model", "simple_cnn", *data, "--epochs", 1, "--out", "net.safetensors"),
        "prune": (*dense, *data, *quick, "--out", "sparse.safetensors"),
        "finetune": ("--weights", "sparse.safetensors", *data, "--epochs", 1, "--out", "tuned.safetensors"),
        "export": (*dense, "--out", "dense.onnx"),
        "predict": ("dense.onnx", "--estimate"),
        "prune-export": (*dense, *data, *quick, "--no-baseline", "--eval-samples", 20, "--out", "run"),
        "verify": ("run/sparse.onnx",),
        "explain": ("run/sparse.fp16.onnx",),
        "benchmark": (
            *("run/dense.fp16.onnx", "run/sparse.fp16.onnx", *data, "--runtime", "onnxruntime"),
            *("--eval-samples", 20, "--duration", 0, "--warmup", 0, "--rounds", 2, "--out", "run/benchmark.json"),
        ),
        "report": ("run",),
        "sweep": (*dense, *data, "--method", "magnitude", "--pattern", "2:4", "--samples", 8, "--out", "swept"),
    }
    for name, arguments in steps.items():
        program, following, *rest = next_step(name, *arguments)
        assert program == "sparsegpt-trt", name
        known = {option for each in COMMANDS[following].params for option in each.opts}
        assert {part for part in rest if re.match(r"--[a-z]", part)} <= known, name
    for name, arguments, first in (
        ("triton-export", ("run/sparse.fp16.onnx", "--out", "models"), "tritonserver"),
        ("deepstream-export", ("run/sparse.fp16.onnx",), "nvinfer"),
    ):
        assert next_step(name, *arguments)[0] == first


def test_the_stages_of_a_run_leave_the_next_step_to_the_run(next_step, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("data: digits\ntrain: {model: simple_cnn, epochs: 1}\nprune: {samples: 16, layers: all}\n")
    assert next_step("run", config, "--out", tmp_path / "out")[:2] == ["sparsegpt-trt", "run"]
