"""Where commands write: never over their inputs, and into the current folder under every name of it."""

import json

import pytest

from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a.safetensors", "train --model simple_cnn --epochs 1 --weights {file} --out {file}"),
        ("a.safetensors", "train --model simple_cnn --epochs 1 --data npz:{file} --out {file}"),
        ("a.safetensors", "prune --weights {file} --out {file}"),
        ("a.int8.safetensors", "prune --int8 --weights {file} --out {folder}/a.safetensors"),
        ("sparse.safetensors", "prune-export --weights {file} --out {folder}"),
        ("sparse.int8.safetensors", "prune-export --int8 --weights {file} --out {folder}"),
        ("a.safetensors", "finetune --weights {file} --out {file}"),
        ("a.safetensors", "finetune --weights other.safetensors --dense {file} --out {file}"),
        ("a.onnx", "export --weights {file} --out {file}"),
        ("a.onnx", "build {file} --out {file}"),
        ("a.onnx", "build {file} --timing-cache {file}"),
        ("a.cache", "build a.onnx --timing-cache {file} --out {file}"),
        ("a.onnx", "predict {file} --estimate --out {file}"),
        ("a.onnx", "benchmark {file} b.onnx --out {file}"),
        ("a.onnx", "benchmark b.onnx {file} --out {file}"),
        ("a.npz", "benchmark a.onnx b.onnx --eval-data npz:{file} --out {file}"),
    ],
)
def test_inputs_are_never_overwritten(cli, digits_checkpoint, tmp_path, name, command):
    checkpoint = load_checkpoint(digits_checkpoint)
    save_checkpoint(tmp_path / "saved.safetensors", checkpoint.state, checkpoint.metadata)
    file = (tmp_path / "saved.safetensors").rename(tmp_path / name)
    before = file.read_bytes()
    outcome = cli(*command.format(file=file, folder=tmp_path).split(), "--quiet")
    assert outcome.code == 1
    assert (
        outcome.err == f"error: {file} would be overwritten. Give another output path: inputs are never overwritten.\n"
    )
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_an_input_is_found_through_a_link(cli, digits_checkpoint, tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(digits_checkpoint)
    before = digits_checkpoint.read_bytes()
    outcome = cli("train", "--model", "simple_cnn", "--epochs", 1, "--weights", digits_checkpoint, "--out", link)
    assert "link.safetensors would be overwritten" in outcome.err
    assert digits_checkpoint.read_bytes() == before


def _write(path, content=b"of another program"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("x.safetensors", "train --model simple_cnn --epochs 1 --data digits --out {folder}/x.safetensors"),
        ("x.safetensors", "prune --weights {weights} --data digits --out {folder}/x.safetensors"),
        ("x.int8.safetensors", "prune --int8 --weights {weights} --data digits --out {folder}/x.safetensors"),
        ("x.safetensors", "finetune --weights {weights} --data digits --out {folder}/x.safetensors"),
        ("x.onnx", "export --weights {weights} --out {folder}/x.onnx"),
        ("a.plan", "build a.onnx --out {folder}/a.plan"),
        ("p.json", "predict a.onnx --out {folder}/p.json"),
        ("b.json", "benchmark a.onnx b.onnx --data digits --out {folder}/b.json"),
        ("sparse.onnx", "prune-export --weights {weights} --data digits --out {folder}"),
        ("report.html", "prune-export --weights {weights} --data digits --out {folder}"),
        ("prune.json", "demo --out {folder}"),
    ],
)
def test_files_that_exist_are_kept(cli, digits_checkpoint, tmp_path, file, command):
    _write(tmp_path / file)
    outcome = cli(*command.format(folder=tmp_path, weights=digits_checkpoint).split(), "--quiet")
    assert outcome.code == 1
    assert outcome.err == f"error: {tmp_path / file} exists. Give another output path, or --force to replace it.\n"
    assert (tmp_path / file).read_bytes() == b"of another program"
    assert list(tmp_path.iterdir()) == [tmp_path / file]


def test_force_replaces_files(cli, digits_checkpoint, tmp_path):
    _write(tmp_path / "sparse.onnx")
    options = ["--samples", 32, "--quality", "fast", "--no-baseline", "--data", "digits", "--quiet", "--force"]
    outcome = cli("prune-export", "--layers=all", "--weights", digits_checkpoint, *options, "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    assert cli("verify", tmp_path / "sparse.onnx").code == 0


def test_a_run_replaces_files_of_its_own_folder_only(cli, digits_checkpoint, tmp_path):
    config = tmp_path / "net.yaml"
    config.write_text(
        f"weights: {digits_checkpoint}\ndata: digits\nprune: {{samples: 32, quality: fast, layers: all}}\n"
    )
    own, other = tmp_path / "own", tmp_path / "other"
    assert cli("run", config, "--out", own, "--quiet").code == 0
    config.write_text(config.read_text().replace("32", "48"))
    assert cli("run", config, "--out", own, "--quiet").code == 0
    (pruned,) = own.glob("*.safetensors")
    _write(other / pruned.name)
    outcome = cli("run", config, "--out", other, "--quiet")
    assert outcome.code == 1
    assert f"{other / pruned.name} exists. " in outcome.err
    assert (other / pruned.name).read_bytes() == b"of another program"


@pytest.mark.parametrize("name", [".", "./", "..", "folder/.."])
def test_the_current_folder_and_its_parent_are_output_folders(cli, digits_checkpoint, tmp_path, monkeypatch, name):
    inner = tmp_path / "outer" / "inner"
    (inner / "folder").mkdir(parents=True)
    monkeypatch.chdir(inner)
    options = ["--samples", 32, "--eval-samples", 32, "--quality", "fast", "--no-baseline", "--json", "--quiet"]
    outcome = cli(
        "prune-export", "--layers=all", "--weights", digits_checkpoint, "--data", "digits", *options, "--out", name
    )
    assert outcome.code == 0, outcome.err
    folder = (inner / name).resolve()
    assert {"dense.onnx", "sparse.onnx", "report.html"} <= {path.name for path in folder.iterdir()}
    assert json.loads(outcome.out)["out"] == str(folder)
    assert list(tmp_path.rglob("*.unfinished")) == []


def test_an_empty_output_path_is_an_error_of_usage(cli):
    outcome = cli("prune-export", "--layers=all", "--model", "simple_cnn", "--out", "")
    assert outcome.code == 2
    assert outcome.err == "error: Invalid value for '--out': the path is empty. See --help.\n"
