"""What all commands have in common."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from sparsegpt_cli.commands import COMMANDS
from sparsegpt_core import __version__
from sparsegpt_core.quality import BATCH_NORMS, QUALITIES
from sparsegpt_core.settings import MASKS, METHODS
from tests.support.paths import ROOT

NAMES = [function.__name__.replace("_", "-") for function in COMMANDS]


def test_help_lists_every_command(cli):
    outcome = cli("--help")
    assert outcome.code == 0
    assert all(name in outcome.out for name in NAMES)


def test_no_command_shows_the_help(cli):
    assert cli().out == cli("--help").out


def test_version(cli):
    assert cli("--version").out == f"sparsegpt-trt {__version__}\n"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself_and_takes_the_common_options(cli, name):
    outcome = cli(name, "--help")
    assert outcome.code == 0
    assert cli(name, "--help-all").code == 0
    assert all(option in outcome.out for option in ("--json", "--quiet", "--seed"))


def test_the_list_of_commands_cuts_no_sentence(cli):
    lines = cli("--help").out.partition("Commands:")[2].strip().splitlines()
    assert len(lines) == len(NAMES)
    assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize(
    ("option", "values"),
    [("--batch-norm", BATCH_NORMS), ("--mask", MASKS), ("--method", METHODS), ("--quality", QUALITIES)],
)
def test_help_names_every_value(cli, option, values):
    text = " ".join(cli("prune", "--help-all").out.partition(f"  {option} ")[2].partition("\n  --")[0].split())
    assert [value for value in values if not re.search(rf"\b{value}\b", text)] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["verify"],
        ["verify", "x.onnx", "--no-such-option"],
        ["verify", "x.onnx", "--fail-on", "nonsense"],
        ["prune-export"],
        ["prune-export", "--out", "x", "--samples", "many"],
        ["prune-export", "--out", "x", "--samples", "0"],
        ["train", "--model", "simple_cnn", "--out", "x.safetensors", "--seed", "-1"],
    ],
)
def test_usage_errors_are_one_line_and_exit_2(cli, arguments):
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1
    assert cli(*arguments, "--json").json.keys() == {"error", "hint"}


def test_json_errors_go_to_standard_output_too(cli, tmp_path):
    outcome = cli("verify", tmp_path / "missing.onnx", "--json")
    assert outcome.code == 1
    assert "missing.onnx" in outcome.json["error"]
    assert outcome.json["hint"]
    assert "missing.onnx" in outcome.err


def test_a_package_that_shadows_ours_is_named(tmp_path):
    (tmp_path / "export.py").write_text("")
    command = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; from sparsegpt_cli.app import main; "
    done = subprocess.run(
        [sys.executable, "-c", command + "sys.exit(main(['doctor']))"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert str(tmp_path / "export.py") in done.stderr


def test_interrupted_training_leaves_nothing(cli, tmp_path, monkeypatch):
    from sparsegpt_cli.jobs import training as training

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "run", interrupted)
    outcome = cli("train", "--model", "simple_cnn", "--data", "digits", "--out", tmp_path / "x.safetensors")
    assert outcome.code == 130
    assert "interrupted" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_doctor_lists_the_installed_libraries(cli):
    content = cli("doctor", "--json").json
    found = {check["name"]: check["ok"] for check in content["checks"]}
    assert found["torch"]
    assert found["onnxruntime"]
    assert content["environment"]["python"]


@pytest.mark.parametrize("missing", [("tensorrt", "tensorrt_rtx", "pycuda", "timm"), ("torch",)])
def test_doctor_runs_without(program, missing):
    outcome = program("doctor", "--json", without=missing)
    assert outcome.code == 0, outcome.err
    checks = {check["name"]: check for check in outcome.json["checks"]}
    for name in missing:
        assert not checks[name]["ok"]
        assert "pip install" in checks[name]["fix"]


def test_strict_doctor_fails_where_something_needed_is_missing(program):
    assert program("doctor", "--strict", without=("torch",)).code == 1


def test_pruning_without_torch_says_how_to_install_it(program, tmp_path):
    outcome = program("prune-export", "--out", tmp_path / "out", without=("torch",))
    assert outcome.code == 1
    assert "pip install" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_warning_that_is_logged_is_shown(cli, tmp_path, monkeypatch):
    """Evaluation cannot return that it halved its batches: it logs the warning."""
    (tmp_path / "greedy.py").write_text(
        "import torch\n"
        "class Greedy(torch.nn.Sequential):\n"
        "    def forward(self, images):\n"
        "        if not self.training and len(images) > 100:\n"
        "            raise torch.OutOfMemoryError('CUDA out of memory')\n"
        "        return super().forward(images)\n"
        "def make():\n"
        "    return Greedy(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    outcome = cli("train", "--model", "greedy:make", "--data", "digits", "--epochs", 1, "--out", "x.safetensors")
    assert outcome.code == 0, outcome.err
    assert "warning: the GPU's memory is full with batches of" in outcome.err


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_knows_its_targets():
    done = subprocess.run(["make", "-n", "demo", "test"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_results_are_strict_json(cli):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    json.loads(cli("doctor", "--json").out, parse_constant=refuse)
