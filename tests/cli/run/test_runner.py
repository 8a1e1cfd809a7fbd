"""``run``: stages from a file, what flows between them, and what is done again."""

import fcntl
import gc
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch
import typer

from deploy.machine import Backend
from export.audit import audit_model
from sparsegpt_cli.app import app
from sparsegpt_cli.commands import COMMANDS
from sparsegpt_cli.framework import load_config
from sparsegpt_cli.run import STAGE_FILES, resolve
from sparsegpt_cli.run.record import RunRecord
from sparsegpt_cli.run.runner import Outcome
from sparsegpt_cli.run.stages import OUTPUTS
from sparsegpt_core.files import sha256
from sparsegpt_core.pruning import prune_model
from tests.support.paths import ROOT

GROUP = typer.main.get_command(app)
CHECKPOINTS = """
data: digits
seed: 1
train: {model: simple_cnn, epochs: 2, batch-size: 64}
prune: {samples: 64, layers: all}
finetune: {epochs: 1, learning-rate: 1e-3}
"""
CONFIG = f"{CHECKPOINTS}export:\nverify: {{fail-on: dense}}\n"
STAGES = ["train", "prune", "finetune", "export", "verify"]
FILES = ["dense.safetensors", "sparse.safetensors", "finetuned.safetensors", "finetuned.onnx"]


def stages(path, out="out", seed=0):
    with typer.Context(GROUP) as root, typer.Context(GROUP.commands["run"], parent=root) as context:
        return resolve(load_config(Path(path), GROUP.commands, context), Path(out), seed, context)


def lines(tmp_path, text, **options):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return [stage.line for stage in stages(path, **options)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing interrupted; copy it before changing anything."""
    from sparsegpt_cli.app import main

    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(CONFIG)
    assert main(["run", str(folder / "config.yaml"), "--out", str(folder / "out"), "--quiet"]) == 0
    return folder


@pytest.fixture
def again(finished, tmp_path, cli):
    """Run a copy of the finished run again, with a changed configuration; gives the outcome."""
    shutil.copytree(finished / "out", tmp_path / "out")
    path = tmp_path / "config.yaml"

    def run(*options, old="", new=""):
        path.write_text(CONFIG.replace(old, new))
        return cli("run", path, "--out", tmp_path / "out", "--json", *options)

    return run


def test_files_flow_from_stage_to_stage(tmp_path):
    text = """
    data: digits
    samples: 32
    train: {model: simple_cnn}
    prune-export: {refit: false, include: [conv*, fc 2]}
    build: {compute-capability: 8.6}
    benchmark: {batch: [1, 8]}
    report:
    finetune: {dense: null}
    export:
    verify:
    triton-export:
    """
    assert lines(tmp_path, text) == [
        "sparsegpt-trt train --model simple_cnn --out out/dense.safetensors --data digits",
        "sparsegpt-trt prune-export --out out --weights out/dense.safetensors --data digits --samples 32 --no-refit "
        "--include 'conv*' --include 'fc 2'",
        "sparsegpt-trt build out/sparse.fp16.onnx --out out/sparse.fp16.plan --compute-capability 8.6",
        "sparsegpt-trt benchmark out/dense.fp16.onnx out/sparse.fp16.onnx --data digits --batch 1 --batch 8 "
        "--out out/benchmark.json",
        "sparsegpt-trt report out",
        "sparsegpt-trt finetune --weights out/sparse.safetensors --out out/finetuned.safetensors --data digits "
        "--samples 32",
        "sparsegpt-trt export --weights out/finetuned.safetensors --out out/finetuned.onnx --data digits --samples 32",
        "sparsegpt-trt verify out/finetuned.onnx",
        "sparsegpt-trt triton-export out/finetuned.onnx --out out/triton",
    ]


def test_a_benchmark_after_an_export_has_both_files_in_its_precision(tmp_path):
    for precision, dense in (("fp32", "dense.onnx"), ("int8", "dense.int8.onnx")):
        text = f"weights: a.safetensors\nprune-export:\nfinetune:\nexport: {{precision: {precision}}}\nbenchmark:"
        assert lines(tmp_path, text)[-1].startswith(f"sparsegpt-trt benchmark out/{dense} out/finetuned.onnx ")


@pytest.mark.parametrize(
    ("options", "runtime", "backend", "refused"),
    [
        ("", "", True, True),
        ("", "", False, False),  # ONNX Runtime's CPU kernels take FP32
        ("{precision: fp16}", "", True, False),
        ("", "{runtime: onnxruntime}", True, False),
        ("", "{runtime: onnxruntime-tensorrt}", True, True),
    ],
)
def test_a_benchmark_of_engines_of_an_fp32_export_is_refused_before_the_first_stage(
    cli, tmp_path, monkeypatch, options, runtime, backend, refused
):
    def find(wanted):
        return Backend("tensorrt", None, "10") if backend and wanted == "auto" else None, "as asked for"

    monkeypatch.setattr("deploy.machine.find_runtime", find)
    monkeypatch.setattr("sparsegpt_cli.run.run_stages", lambda *_: Outcome())
    path = tmp_path / "config.yaml"
    path.write_text(f"weights: a.safetensors\nprune-export:\nfinetune:\nexport: {options}\nbenchmark: {runtime}")
    outcome = cli("run", path, "--out", tmp_path / "out")
    assert outcome.code == int(refused)
    message = (
        "error: benchmark: $OUT/finetuned.onnx will be FP32, for which TensorRT has no sparse kernels. "
        "Set precision: fp16 in the section export, or runtime: onnxruntime in the section benchmark.\n"
    )
    assert outcome.err == (message if refused else "")


def test_without_training_the_weights_at_the_top_are_the_dense_ones(tmp_path):
    text = "weights: a.safetensors\nprune-export:\nfinetune: {epochs: 2}"
    assert lines(tmp_path, text, seed=4) == [
        "sparsegpt-trt prune-export --out out --weights a.safetensors --seed 4",
        "sparsegpt-trt finetune --weights out/sparse.safetensors --out out/finetuned.safetensors --dense a.safetensors "
        "--epochs 2 --seed 4",
    ]


def test_before_pruning_predict_looks_at_the_dense_file_and_tells_pruning(tmp_path):
    text = "train: {model: simple_cnn}\nexport:\npredict:\nprune-export: {out: $OUT/pruned}\nverify:"
    assert [shlex.split(line)[1:] for line in lines(tmp_path, text)[1:]] == [
        ["export", "--weights", "out/dense.safetensors", "--out", "out/dense.onnx"],
        ["predict", "out/dense.onnx", "--out", "out/predict.json"],
        ["prune-export", "--out", "out/pruned", "--weights", "out/dense.safetensors", "--profile", "out/predict.json"],
        ["verify", "out/pruned/sparse.onnx"],
    ]


def test_data_goes_from_stage_to_stage(tmp_path):
    """Model files record no folders, so a later stage could not find the data by itself."""
    first = "prune-export: {weights: dense.safetensors, data: npz:/there/train.npz, eval-data: npz:/there/val.npz}"
    prune, check, benchmark = lines(tmp_path, f"{first}\nverify:\nbenchmark:")
    assert "/there" in prune
    assert "/there" not in check
    assert "--data npz:/there/train.npz --eval-data npz:/there/val.npz" in benchmark
    own = lines(tmp_path, f"{first}\nbenchmark: {{data: digits}}")[-1]
    assert "--data digits" in own
    assert "/there" not in own


def test_a_section_wins_over_files_of_stages_and_these_over_shared_values(tmp_path):
    text = """
    seed: 5
    weights: top.safetensors
    train: {model: simple_cnn, weights: null, out: $OUT/a.safetensors}
    prune:
    finetune: {weights: other.safetensors, seed: 6}
    """
    assert lines(tmp_path, text, seed=5) == [
        "sparsegpt-trt train --model simple_cnn --out out/a.safetensors --seed 5",
        "sparsegpt-trt prune --out out/sparse.safetensors --weights out/a.safetensors --seed 5",
        "sparsegpt-trt finetune --weights other.safetensors --out out/finetuned.safetensors "
        "--dense out/a.safetensors --seed 6",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epochs: 1}", "train: Missing option '--model'"),
        ("benchmark:", "benchmark: Missing argument '"),
        (
            "train: {model: simple_cnn, out: x.safetensors}",
            "train: out is x.safetensors, outside out. Write $OUT/NAME.",
        ),
        ("train: {model: simple_cnn, out: $OUT/../x.safetensors}", "outside out"),
        ("build: {model: x.onnx, timing-cache: /tmp/cache}", "build: timing-cache is /tmp/cache, outside out"),
        ("prune-export:\nexport:", "export: out is out/sparse.onnx, which prune-export also writes"),
        ("doctor:\ndemo:", "contains no stage"),
    ],
)
def test_a_wrong_stage_is_refused_before_the_first_one_runs(cli, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(text)
    outcome = cli("run", "config.yaml", "--out", "out")
    assert outcome.code == 1
    assert len(outcome.err.strip().splitlines()) == 1
    assert message in outcome.err
    assert not Path("out").exists()


def test_a_link_does_not_lead_outside(cli, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "way").symlink_to(tmp_path)
    (tmp_path / "config.yaml").write_text("train: {model: simple_cnn, out: $OUT/way/x.safetensors}")
    outcome = cli("run", tmp_path / "config.yaml", "--out", tmp_path / "out")
    assert (outcome.code, "outside" in outcome.err) == (1, True)


def test_a_run_does_its_stages_and_the_next_none(finished, again):
    record = json.loads((finished / "out/run.json").read_text())
    assert list(record["stages"]) == STAGES
    written = {name: digest for stage in record["stages"].values() for name, digest in stage["writes"].items()}
    assert all(written[f"$OUT/{name}"] == sha256(finished / "out" / name) for name in FILES)
    reads = {name: list(stage["reads"]) for name, stage in record["stages"].items()}
    assert reads["finetune"] == ["$OUT/dense.safetensors", "$OUT/sparse.safetensors"]
    assert record["stages"]["prune"]["options"]["samples"] == 64
    assert record["stages"]["prune"]["options"]["seed"] == 1
    outcome = again()
    assert outcome.code == 0, outcome.err
    content = outcome.json
    assert (content["ran"], content["unchanged"], content["failed"]) == ([], STAGES, None)
    assert content["stages"]["train"]["history"]
    assert content["stages"]["verify"]["sparse_layers"] == 2


def test_a_stage_does_the_same_as_its_command_line(finished, tmp_path, cli):
    (train,) = stages(finished / "config.yaml", tmp_path / "other", seed=1)[:1]
    assert cli(*shlex.split(train.line)[1:]).code == 0
    assert sha256(tmp_path / "other/dense.safetensors") == sha256(finished / "out/dense.safetensors")


@pytest.mark.parametrize(
    ("old", "new", "message", "ran"),
    [
        ("samples: 64", "samples: 128", "prune again: samples was 64, is 128", STAGES[1:]),
        (
            "{fail-on: dense}",
            "{pattern: 2:4}",
            "verify again: fail-on was dense, is not given; pattern was not given, is 2:4",
            ["verify"],
        ),
        ("train: {", "weights: top.safetensors\ntrain: {weights: null, ", "", []),
        ("data: digits", "data: digits\nquiet: true\nrounds: 9", "", []),
    ],
)
def test_a_changed_stage_and_those_that_depend_on_it_run_again(again, old, new, message, ran):
    outcome = again(old=old, new=new)
    assert outcome.code == 0, outcome.err
    assert message in outcome.err
    assert outcome.json["ran"] == ran


def test_a_stage_whose_inputs_came_out_the_same_is_not_done_again(again, tmp_path):
    (tmp_path / "out/sparse.safetensors").unlink()
    outcome = again()
    assert "prune again: sparse.safetensors is gone" in outcome.err
    assert outcome.json["ran"] == ["prune"]


def test_a_file_that_someone_changed_is_made_again(again, tmp_path, finished):
    (tmp_path / "out/finetuned.safetensors").write_bytes(b"mine")
    outcome = again()
    assert "finetune again: finetuned.safetensors is not what it wrote" in outcome.err
    assert outcome.json["ran"] == ["finetune"]
    assert sha256(tmp_path / "out/finetuned.safetensors") == sha256(finished / "out/finetuned.safetensors")


@pytest.mark.parametrize("edited", ["mynet.py", "package/images.py", "mysize.py"])
def test_a_stage_whose_code_was_edited_runs_again(tmp_path, monkeypatch, edited):
    monkeypatch.chdir(tmp_path)
    Path("package").mkdir()
    for file in ("mynet.py", "package/images.py", "mysize.py"):
        Path(file).write_text("raise AssertionError('nothing is imported')")
    specs = "model: ./mynet.py:net, data: package.images:train, eval-data: package.images:test, metric: mysize:size"
    Path("config.yaml").write_text(f"prune-export: {{{specs}}}\n")
    (stage,) = stages("config.yaml")
    Path("out").mkdir()
    record = RunRecord(Path("out"))
    record.keep(stage, record.reads(stage), [], {})
    assert RunRecord(Path("out")).changes(stage) == []
    Path(edited).write_text("def size(): ...")
    assert RunRecord(Path("out")).changes(stage) == [f"{edited} changed"]


def test_a_librarys_network_is_no_code_of_the_user(tmp_path):
    (tmp_path / "config.yaml").write_text("prune-export: {model: torchvision:resnet18, data: digits, pattern: 2:4}\n")
    assert RunRecord(tmp_path).reads(stages(tmp_path / "config.yaml")[0]) == {}


def test_memory_of_the_gpu_is_free_before_the_next_stage(again, monkeypatch):
    """PyTorch keeps freed blocks, and a model in a cycle of references keeps its own. Engines need both."""
    models, events = [], []

    def kept_in_a_cycle(model, *arguments, **settings):
        model.itself = [model]
        models.append(weakref.ref(model))
        return prune_model(model, *arguments, **settings)

    def audited(*arguments, **settings):
        events.append("verify")
        return audit_model(*arguments, **settings)

    def emptied():
        events.append("model lives" if any(model() is not None for model in models) else "released")

    monkeypatch.setattr("sparsegpt_cli.jobs.pruning.prune_model", kept_in_a_cycle)
    monkeypatch.setattr("export.audit.audit_model", audited)
    monkeypatch.setattr(torch.cuda, "empty_cache", emptied)
    gc.disable()
    try:
        outcome = again(old="samples: 64", new="samples: 65")
    finally:
        gc.enable()
    assert outcome.json["ran"] == ["prune", "finetune", "export", "verify"]
    assert models
    assert events == [*["released"] * 3, "verify", "released"]


def test_another_version_does_everything_again(again, tmp_path, monkeypatch):
    path = tmp_path / "out/run.json"
    record = json.loads(path.read_text())
    record["stages"]["verify"]["tool_version"] = "0.0.1"
    path.write_text(json.dumps(record))
    outcome = again()
    assert "verify again: sparsegpt-trt was 0.0.1" in outcome.err
    assert outcome.json["ran"] == ["verify"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"stages": {"train": 1}}', '{"stages": {"train": {}}}', "[" * 100_000]
)
def test_a_damaged_record_is_one_line(again, tmp_path, text):
    (tmp_path / "out/run.json").write_text(text)
    outcome = again("--quiet")
    assert outcome.code == 1
    assert len(outcome.err.strip().splitlines()) == 1
    assert "run.json" in outcome.json["error"]


def test_a_check_that_fails_ends_the_run_and_is_tried_again(again, tmp_path):
    for _ in range(2):
        outcome = again(old="verify: {fail-on: dense}", new="verify: {fail-on: ineligible}\ntriton-export:")
        assert outcome.code == 1
        assert outcome.json["failed"] == "verify"
        assert outcome.json["stages"]["verify"]["layers"]
        assert "triton-export" not in outcome.json["stages"]
    assert again(new="\ntriton-export:", old="\nverify: {fail-on: dense}").json["ran"] == ["triton-export"]


def test_an_error_names_its_stage(again):
    outcome = again(old="samples: 64", new="samples: 100000")
    assert outcome.code == 1
    assert outcome.json["error"].startswith("prune: ")


def test_two_runs_in_one_folder(again, tmp_path):
    with (tmp_path / "out/.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        outcome = again()
    assert (outcome.code, "another run writes to" in outcome.err) == (1, True)
    assert again().code == 0


def test_a_folder_that_cannot_be_made(cli, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "config.yaml").write_text(CONFIG)
    outcome = cli("run", tmp_path / "config.yaml", "--out", tmp_path / "file")
    assert (outcome.code, "cannot write to" in outcome.err) == (1, True)


def test_torchrun_is_for_single_stages(again, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "run does not work under torchrun" in again().err


def killed_when_there_is(path, command):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_killed_run_resumes_and_writes_the_same_bytes(finished, tmp_path, cli):
    """Killed in the middle of its first stage, then behind it."""
    out, config = tmp_path / "out", tmp_path / "config.yaml"
    config.write_text(CHECKPOINTS)
    for name in ("dense.curve.svg", "run.json"):
        killed_when_there_is(out / name, [sys.executable, "-m", "sparsegpt_cli", "run", config, "--out", out])
    outcome = cli("run", config, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["unchanged"] == STAGES[:1]
    for name in FILES[:3]:
        assert sha256(out / name) == sha256(finished / "out" / name), name


def test_every_stage_is_a_command_and_every_path_is_read_or_written():
    """A new option that names an output must be one of OUTPUTS, lest a file of it be taken for an input."""
    functions = {function.__name__.replace("_", "-"): function for function in COMMANDS}
    assert functions.keys() >= STAGE_FILES.keys()
    paths = {
        name
        for stage in STAGE_FILES
        for name, annotation in functions[stage].__annotations__.items()
        if "Path" in str(annotation) and name not in ("config", "config_file")
    }
    inputs = {"weights", "dense", "sparse", "model", "profile", "data_root", "plan_b", "plan_c", "times", "run"}
    inputs |= {"ort_custom_ops", "other"}
    assert paths - inputs == set(OUTPUTS)


def test_the_handbook_knows_every_stage():
    text = (ROOT / "docs/config.md").read_text()
    assert all(f"| `{name}` |" in text for name in STAGE_FILES)


RUNS = [path for path in sorted((ROOT / "configs").glob("*.yaml")) if not path.stem.startswith("sweep")]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_configurations_that_come_with_it(path):
    names = [stage.name for stage in stages(path)]
    assert {"train", "prune-export", "verify"} <= {*names}
    assert path.read_text().startswith("# ")


def test_there_is_one_for_each_reference_network():
    models = {stages(path)[0].options["model"] for path in RUNS}
    assert models == {"simple_cnn", "cifar_cnn", "resnet18_cifar", "vgg16_cifar"}
