"""``predict``, ``prune-export --profile`` and ``explain`` on real digits, on a machine without a GPU."""

import json

import pytest

from deploy.machine import find_gpu
from sparsegpt_core.files import sha256, write_json

pytestmark = pytest.mark.skipif(find_gpu() is not None, reason="a GPU is here")


@pytest.fixture(scope="module")
def dense(digits_checkpoint, tmp_path_factory):
    """The digits' network, exported without pruning."""
    from sparsegpt_cli.app import main

    path = tmp_path_factory.mktemp("dense") / "dense.onnx"
    assert main(["export", "--weights", str(digits_checkpoint), "--out", str(path), "--quiet"]) == 0
    return path


@pytest.fixture(scope="module")
def profiled(dense, digits_checkpoint, tmp_path_factory):
    """The folder of a run with a profile, and the profile."""
    from sparsegpt_cli.app import main

    out = tmp_path_factory.mktemp("profiled")
    profile = out / "benchmark.json"
    gains = {"conv2": (1.01, "CHOSEN_NO_GAIN"), "fc1": (1.5, None), "fc2": (0.9, "ELIGIBLE_NOT_CHOSEN")}
    layers = [{"name": name, "gain": gain, "reason": reason} for name, (gain, reason) in gains.items()]
    write_json(profile, {"explanation": {"layers": layers}})
    command = ["prune-export", "--weights", str(digits_checkpoint), "--profile", str(profile), "--no-baseline"]
    command += ["--eval-samples", "20", "--samples", "64", "--out", str(out / "run")]
    assert main(command) == 0
    return out / "run", profile


def test_the_estimate_calls_itself_one(cli, dense):
    outcome = cli("predict", dense, "--json")
    assert outcome.code == 0, outcome.err
    assert "estimated, since FP32" in outcome.err
    content = outcome.json
    assert content["estimate"] is True
    assert content["shapes"] == {"input": [8, 1, 8, 8]}
    gains = {layer["name"]: (layer["reason"], layer["gain"]) for layer in content["layers"]}
    assert gains["conv1"] == ("CHANNELS_NOT_MULTIPLE", 1)
    assert gains["conv2"] == ("SMALL_CHANNELS", 1)
    assert content["gpu"] == "a100"
    shown = cli("predict", dense, "--shapes", "1/64/64").out
    assert "SMALL_CHANNELS (3): " in shown
    assert "An estimate from layer shapes, not a measurement" in shown


def test_the_estimate_is_for_the_gpu_that_is_asked_for(cli, dense):
    small, large = (cli("predict", dense, "--gpu", gpu, "--json").json for gpu in ("orin-nano", "H100"))
    assert (small["gpu"], large["gpu"]) == ("orin-nano", "h100")
    assert small["seconds"] > large["seconds"]
    assert cli("predict", dense, "--gpu", "l4", "--precision", "int8", "--json").json["precision"] == "int8"
    unknown = cli("predict", dense, "--gpu", "v100")
    assert unknown.code == 1
    assert "no GPU 'v100' is known" in unknown.err
    assert "a100, a100-80gb" in unknown.err
    both = cli("predict", dense, "--gpu", "l4", "--measure")
    assert both.code == 1
    assert "--gpu" in both.err


def test_layers_that_gained_nothing_in_a_profile_stay_dense(profiled):
    out, _ = profiled
    layers = {layer["name"]: layer for layer in json.loads((out / "prune.json").read_text())["layers"]}
    assert {name: (layer["status"], layer["reason"]) for name, layer in layers.items()} == {
        "conv1": ("dense", "CHANNELS_NOT_MULTIPLE"),
        "conv2": ("dense", "CHOSEN_NO_GAIN"),
        "fc1": ("pruned", None),
        "fc2": ("dense", "HEAD"),
    }


def test_prune_says_how_many_and_why_and_include_wins(cli, profiled, digits_checkpoint, tmp_path):
    _, profile = profiled
    options = ["--profile", profile, "--include", "conv2", "--samples", 64, "--out", tmp_path / "x.safetensors"]
    outcome = cli("prune", "--weights", digits_checkpoint, *options, "--json")
    assert outcome.code == 0, outcome.err
    assert "2 of 2 layers can become faster" in outcome.err
    assert {layer["name"]: layer["status"] for layer in outcome.json["layers"]}["conv2"] == "pruned"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"layers": [{"name": "stem", "gain": 1.0}]}, "another network"),
        ({"layers": [{"name": "stem"}]}, "no layers with gains"),
        ({"layers": [{"name": name, "gain": 1} for name in ("conv1", "conv2", "fc1", "fc2")]}, "no layer can become"),
    ],
)
def test_profiles_that_will_not_do(cli, digits_checkpoint, tmp_path, content, message):
    write_json(tmp_path / "p.json", content)
    out = tmp_path / "x.safetensors"
    outcome = cli("prune", "--weights", digits_checkpoint, "--profile", tmp_path / "p.json", "--out", out, "--quiet")
    assert outcome.code == 1
    assert message in outcome.err
    assert not out.exists()


def test_explaining_a_file_alone(cli, profiled):
    out, _ = profiled
    outcome = cli("explain", out / "sparse.fp16.onnx", "--json")
    assert outcome.code == 0, outcome.err
    content = outcome.json
    layers = {layer["name"]: layer for layer in content["layers"]}
    assert (layers["fc1"]["eligible"], layers["fc1"]["chosen"], layers["fc1"]["reason"]) == (True, None, None)
    assert (layers["conv2"]["eligible"], layers["conv2"]["chosen"]) == (False, False)
    assert layers["conv2"]["reason"] == "CHOSEN_NO_GAIN"
    assert content["chosen_layers"] is None
    assert len(content["unknown"]) == 2
    assert content["verdict"] == "not measured; how many of 1 eligible layers use sparse kernels is unknown"
    shown = cli("explain", out / "sparse.onnx").out
    assert "FP32_GRAPH (1): " in shown
    assert "no gain here, because there are no sparse kernels for FP32" in shown


def test_plans_of_tensorrt_rtx_leave_kernels_unknown(cli, profiled, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    out, _ = profiled
    before = sha256(out / "sparse.fp16.onnx")
    plans = {"b": tmp_path / "b.plan", "c": tmp_path / "c.plan"}
    for arm, plan in plans.items():
        flag = "--sparse" if arm == "c" else "--no-sparse"
        assert cli("build", out / "sparse.fp16.onnx", flag, "--out", plan, "--backend", "tensorrt-rtx").code == 0
    options = ["--plan-b", plans["b"], "--plan-c", plans["c"]]
    content = cli("explain", out / "sparse.fp16.onnx", *options, "--json").json
    assert content["chosen_layers"] is None
    assert {layer["name"]: layer["reason"] for layer in content["layers"]}["fc1"] == "OPAQUE"
    assert any("Without a GPU" in note for note in content["unknown"])
    assert sha256(out / "sparse.fp16.onnx") == before


@pytest.mark.parametrize(
    "arguments",
    [["benchmark", "{dense}", "{dense}", "--runtime", "tensorrt"], ["predict", "{dense}", "--measure"]],
)
def test_engines_need_a_gpu(cli, dense, arguments):
    outcome = cli(*(argument.format(dense=dense) for argument in arguments))
    assert outcome.code == 1
    assert len(outcome.err.strip().splitlines()) == 1
    assert "NVIDIA GPU" in outcome.err


def test_the_benchmark_says_which_runtime_and_why(cli, dense):
    options = ["--quick", "--rounds", 2, "--eval-samples", 20, "--batch", 2]
    outcome = cli("benchmark", dense, dense, *options, "--json")
    assert outcome.code == 0, outcome.err
    assert "runtime: ONNX Runtime, since engines run on an NVIDIA GPU" in outcome.err
    content = outcome.json
    assert f"warning: {dense} and {dense} are the same file, so there is nothing to compare" in outcome.err
    assert len(content["warnings"]) == 1
    assert (content["latency_batch"], content["explanation"], content["gpu"]) == (2, None, None)
    assert "ONNX Runtime, as asked for" in cli("benchmark", dense, dense, *options, "--runtime", "onnxruntime").err
    assert cli("benchmark", dense, dense, "--runtime", "cuda").code == 1


@pytest.mark.parametrize("command", [["predict"], ["explain"], ["explain", "--times"]])
def test_bad_files(cli, tmp_path, dense, command):
    (tmp_path / "bad").write_text("bad")
    files = [dense, "--times", tmp_path / "bad"] if "--times" in command else [tmp_path / "bad"]
    outcome = cli(command[0], *files)
    assert outcome.code == 1
    assert len(outcome.err.strip().splitlines()) == 1
    assert "bad" in outcome.err


def test_without_torch(program, dense):
    outcome = program("predict", dense, "--json", without=("torch", "torchvision", "safetensors"))
    assert outcome.code == 0, outcome.err
    assert program("explain", dense, without=("torch", "torchvision")).code == 0
