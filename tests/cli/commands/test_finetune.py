"""``finetune`` on the digits: both methods, what is written, what is refused, and what a kill leaves."""

import shutil
import sys

import numpy as np
import pytest
import torch

from calibration.data import open_data
from calibration.training import Unfinished
from calibration.training.trainer import score
from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
from sparsegpt_core.files import sha256


@pytest.fixture(scope="module")
def sparse(digits_checkpoint, tmp_path_factory):
    """``simple_cnn`` pruned to 1:16 by magnitude, which costs it much."""
    from sparsegpt_cli.app import main

    path = tmp_path_factory.mktemp("sparse") / "sparse.safetensors"
    pattern = ["--pattern", "1:16", "--method", "magnitude"]
    assert (
        main(["prune", "--layers=all", "--weights", str(digits_checkpoint), *pattern, "--out", str(path), "--quiet"])
        == 0
    )
    return path


@pytest.fixture
def finetune(cli, sparse, tmp_path):
    def run(*arguments, out="fine.safetensors", weights=sparse):
        return cli("finetune", "--weights", weights, "--out", tmp_path / out, "--json", *arguments)

    return run


def zeros_are_held(sparse, fine):
    before, after = load_checkpoint(sparse), load_checkpoint(fine)
    for layer in before.metadata["pruned"]:
        weight, zeros = after.state[f"{layer}.weight"], before.state[f"{layer}.weight"] == 0
        assert not weight[zeros].view(torch.int32).any()
        assert not torch.equal(weight, before.state[f"{layer}.weight"])
    return before, after


@pytest.mark.parametrize("dense", [False, True])
def test_training_wins_accuracy_back(finetune, sparse, digits_checkpoint, tmp_path, dense):
    more = ["--dense", digits_checkpoint] if dense else []
    outcome = finetune("--epochs", 2, "--augment", "none", "--learning-rate", 0.1, *more)
    assert outcome.code == 0, outcome.err
    content = outcome.json
    assert content["out"] == str(tmp_path / "fine.safetensors")
    assert (content["method"], content["pattern"]) == ("training", "1:16")
    assert [epoch["epoch"] for epoch in content["history"]] == [0, 1, 2]
    assert content["history"][0]["loss"] is None
    best = content["history"][content["best_epoch"]]
    assert best["validation_top1"] == content["validation_top1"] > content["history"][0]["validation_top1"]
    assert (content["dense_validation_top1"] is None) == (not dense)
    evaluation = content["evaluation"]
    assert evaluation.keys() == {"before", "after"} | ({"dense"} if dense else set())
    assert evaluation["after"]["loss"] < 0.8 * evaluation["before"]["loss"]
    assert content["seconds"] > 0
    assert "best:" in (tmp_path / "fine.curve.svg").read_text()
    before, after = zeros_are_held(sparse, tmp_path / "fine.safetensors")
    kept = ("pattern", "method", "pruned", "dense", "model", "num_classes", "image", "source_sha256")
    assert {key: after.metadata[key] for key in kept} == {key: before.metadata[key] for key in kept}
    assert after.metadata["finetuned_from"] == sha256(sparse)
    assert after.metadata["finetuning"]["method"] == "training"
    assert after.metadata["evaluation"] == evaluation["after"]


def test_blocks_need_no_labels_and_win_accuracy_back_too(finetune, sparse, digits_checkpoint, tmp_path):
    content = finetune("--method", "blocks", "--dense", digits_checkpoint, "--learning-rate", 0.05).json
    assert content["method"] == "blocks"
    assert content["samples"] == 256
    assert content["held_out"]["after"]["logit_error"] < content["held_out"]["before"]["logit_error"] / 2
    assert content["evaluation"]["after"]["top1"] > content["evaluation"]["before"]["top1"]
    (block,) = content["blocks"]
    assert block["name"] == "conv2 … fc2"
    assert block["layers"] == ["conv2", "fc1"]
    assert block.keys() == {"name", "layers", "before", "after", "epochs", "network"}
    assert (content["kept_blocks"], content["untouched"]) == (1, [])
    assert ">before<" in (tmp_path / "fine.curve.svg").read_text()
    zeros_are_held(sparse, tmp_path / "fine.safetensors")


METRIC = """
import numpy as np

def margin(outputs, labels):
    return {"margin": outputs[np.arange(len(labels)), labels] - np.median(outputs, axis=1)}

class Right:
    higher_is_better = True

    def __init__(self):
        self.right = []

    def update(self, outputs, labels):
        self.right += list(outputs.argmax(axis=1) == labels)

    def compute(self):
        return {"right": 100 * np.mean(self.right)}

margin.higher_is_better = True
"""


@pytest.fixture
def metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text(METRIC)
    return tmp_path / "mine.py"


@pytest.mark.parametrize("dense", [False, True])
def test_a_metric_is_measured_before_and_after(finetune, digits_checkpoint, metrics, dense):
    """The share of right classes is top-1, which is measured too."""
    more = ["--dense", digits_checkpoint] if dense else []
    content = finetune("--learning-rate", 0.1, "--metric", f"{metrics}:Right", *more).json
    figure = content["metrics"]["right"]
    assert list(figure["versions"]) == [*(["dense"] if dense else []), "before", "after"]
    for name, found in figure["versions"].items():
        assert found["value"] == pytest.approx(content["evaluation"][name]["top1"])
    reference, after = figure["versions"]["dense" if dense else "before"], figure["versions"]["after"]
    assert after["difference"]["value"] == pytest.approx(after["value"] - reference["value"])
    assert after["difference"]["low"] <= after["difference"]["value"] <= after["difference"]["high"]


def test_a_metric_fails_before_the_first_step(finetune, metrics, digits_checkpoint, tmp_path, monkeypatch):
    images, labels = next(open_data("digits", mean=[0], std=[1]).training.batches(200))
    np.savez(tmp_path / "train.npz", images=images, labels=labels)
    monkeypatch.setattr("sparsegpt_cli.jobs.finetuning.finetune", lambda *_: pytest.fail("a step was made"))
    outcome = finetune("--data", f"npz:{tmp_path / 'train.npz'}", "--metric", f"{metrics}:margin")
    assert outcome.code == 1
    assert outcome.json["error"].endswith("has no evaluation split, which --metric needs")
    assert outcome.json["hint"] == "Give --eval-data."
    broken = tmp_path / "broken.py"
    broken.write_text(METRIC.replace("labels] - ", "labels[:9]] - "))
    assert "IndexError" in finetune("--metric", f"{broken}:margin").json["error"]
    assert "has no margn" in finetune("--metric", f"{metrics}:margn").json["error"]
    assert not (tmp_path / "fine.safetensors").exists()


def test_a_resumed_run_does_not_evaluate_again_what_it_started_from(finetune, monkeypatch, digits_checkpoint):
    """Else an evaluation longer than the time between two kills would leave none for the training."""
    from sparsegpt_cli.jobs import finetuning

    whole = finetune("--dense", digits_checkpoint, out="whole.safetensors").json["evaluation"]
    calls = []

    def counted(*arguments):
        calls.append(1)
        return evaluate(*arguments)

    evaluate, train = finetuning.evaluate_where_possible, finetuning.finetune
    monkeypatch.setattr(finetuning, "evaluate_where_possible", counted)
    with monkeypatch.context() as killed:
        killed.setattr(finetuning, "finetune", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert finetune("--dense", digits_checkpoint).code == 130
    assert (len(calls), train) == (2, finetuning.finetune)
    assert finetune("--dense", digits_checkpoint).json["evaluation"] == whole
    assert len(calls) == 3


def test_data_that_does_not_fit_is_said_before_the_first_step(finetune, digits_checkpoint, tmp_path, monkeypatch):
    images, labels = next(open_data("digits", mean=[0], std=[1]).evaluation.batches(120))
    np.savez(tmp_path / "wrong.npz", images=images, labels=(labels + 1) % 10)
    np.savez(tmp_path / "large.npz", images=images, labels=labels * 100)
    wrong = ("--data", "digits", "--eval-data", f"npz:{tmp_path / 'wrong.npz'}")
    outcome = finetune(*wrong, "--dense", digits_checkpoint)
    assert outcome.code == 0, outcome.err
    (warning,) = outcome.json["warnings"]
    assert warning.startswith("the dense network is no better than chance: top-1 is 0.00 % on 120 evaluation images")
    assert outcome.err.index(f"warning: {warning}") < outcome.err.index("train ")
    assert finetune(*wrong, out="other.safetensors").json["warnings"] == []  # the pruned network may be at chance
    monkeypatch.setattr("sparsegpt_cli.jobs.finetuning.finetune", lambda *_: pytest.fail("a step was made"))
    large = ("--data", "digits", "--eval-data", f"npz:{tmp_path / 'large.npz'}")
    outcome = finetune(*large, out="third.safetensors")
    assert (outcome.code, outcome.json["error"]) == (1, "evaluation labels 0 to 900 do not fit a model of 10 outputs")


@pytest.mark.parametrize(
    ("method", "message", "stage"),
    [("training", "best epoch", "train 8/8"), ("blocks", "1 of 1 blocks, error of outputs", "reconstruct 1/1")],
)
def test_the_terminal_shows_the_result(cli, sparse, digits_checkpoint, tmp_path, method, message, stage):
    out = tmp_path / "fine.safetensors"
    arguments = ["--weights", sparse, "--dense", digits_checkpoint, "--method", method, "--epochs", 1]
    outcome = cli("finetune", *arguments, "--out", out)
    assert outcome.code == 0
    assert message in outcome.out
    assert "evaluation, top-1: dense 9" in outcome.out
    assert str(out.with_suffix(".curve.svg")) in outcome.out
    assert stage in outcome.err


def test_the_result_is_exported_and_verified(cli, finetune, tmp_path):
    assert finetune().code == 0
    model = tmp_path / "fine.onnx"
    exported = cli("export", "--weights", tmp_path / "fine.safetensors", "--out", model, "--json")
    assert exported.json["sparse_layers"] == 2
    content = cli("verify", model, "--json").json
    assert (content["pattern"], content["sparse_layers"]) == ("1:16", 2)


def test_the_same_seed_gives_the_same_bytes(finetune, digits_checkpoint, tmp_path):
    for name in ("a", "b"):
        arguments = ["--method", "blocks", "--dense", digits_checkpoint, "--epochs", 1, "--seed", 3]
        assert finetune(*arguments, out=f"{name}.safetensors").code == 0
    for suffix in ("safetensors", "curve.svg"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_a_killed_fine_tuning_resumes_and_writes_the_same_bytes(finetune, digits_checkpoint, tmp_path, monkeypatch):
    arguments = ["--dense", digits_checkpoint, "--epochs", 2]
    assert finetune(*arguments, out="a.safetensors").code == 0
    scores = []

    def killed(*batches):
        scores.append(batches)
        if len(scores) == 4:  # the dense network, epochs 0 and 1, and then
            raise KeyboardInterrupt
        return score(*batches)

    with monkeypatch.context() as patch:
        patch.setattr(Unfinished.__init__, "__defaults__", (0.0,))
        patch.setattr("calibration.training.unfinished_training._MIN_PAUSE_PER_WRITE", 0)
        patch.setattr("calibration.training.trainer.score", killed)
        assert finetune(*arguments, out="b.safetensors").code == 130
    assert {path.name for path in tmp_path.glob("b.*")} == {"b.safetensors.unfinished", "b.curve.svg"}
    shutil.copytree(tmp_path / "b.safetensors.unfinished", tmp_path / "c.safetensors.unfinished")
    outcome = finetune(*arguments, out="b.safetensors")
    assert "resuming the interrupted training after 16 steps" in outcome.err
    assert {path.name for path in tmp_path.glob("b.*")} == {"b.safetensors", "b.curve.svg"}
    for suffix in ("safetensors", "curve.svg"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    outcome = finetune(*arguments, "--ema", 0.5, out="c.safetensors")
    assert "had other settings (ema); this one starts again" in outcome.err


def test_a_checkpoint_of_no_pruned_network_is_refused(cli, digits_checkpoint, tmp_path):
    outcome = cli("finetune", "--weights", digits_checkpoint, "--out", tmp_path / "fine.safetensors")
    assert outcome.code == 1
    assert "error: the checkpoint's metadata does not list pruned layers. " in outcome.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_breaks_the_pattern_is_refused(finetune, sparse, tmp_path):
    checkpoint = load_checkpoint(sparse)
    checkpoint.state["conv2.weight"][3, 4:6, 1, 1] = 1
    save_checkpoint(tmp_path / "broken.safetensors", checkpoint.state, checkpoint.metadata)
    outcome = finetune(weights=tmp_path / "broken.safetensors")
    assert outcome.code == 1
    assert outcome.json["error"].startswith("conv2 is not pruned to 1:16: 1 of 4608 groups have too many non-zeros")


def test_inputs_are_not_overwritten(cli, sparse):
    before = sha256(sparse)
    outcome = cli("finetune", "--weights", sparse, "--out", sparse)
    assert outcome.code == 1
    assert "would be overwritten" in outcome.err
    assert sha256(sparse) == before


def test_another_dense_network_is_warned_of(finetune, digits_checkpoint, tmp_path):
    checkpoint = load_checkpoint(digits_checkpoint)
    save_checkpoint(tmp_path / "other.safetensors", checkpoint.state, {})
    assert "was pruned from another network than" in finetune("--dense", tmp_path / "other.safetensors").err
    assert "warning" not in finetune("--dense", digits_checkpoint).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "admm"], "unknown method 'admm'"),
        (["--method", "blocks"], "reconstruction needs the dense network"),
        (["--method", "blocks", "--weight-decay", 0], "--weight-decay does nothing with --method blocks"),
        (["--method", "blocks", "--distill", 0.5], "--distill does nothing with --method blocks"),
        (["--samples", 64], "--samples does nothing with --method training"),
        (["--distill", 0.5], "distillation needs the dense network"),
        (["--temperature", 4], "distillation needs the dense network"),
        (["--optimizer", "lion"], "optimizer is lion"),
        (["--data", "npz:images.npz"], "npz:images.npz has no labels to train on"),
        (["--method", "blocks", "--dense", "none.safetensors"], "no checkpoint at none.safetensors"),
        (["--method", "blocks", "--dense", "dense.safetensors", "--samples", 1198], "no images are held out"),
        (["--dense", "dense.safetensors", "--distill", 2], "distill is 2"),
        (["--model", "cifar_cnn"], "the checkpoint does not fit the model"),
    ],
)
def test_options_that_cannot_work_are_refused_in_one_line(
    finetune, digits_checkpoint, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(digits_checkpoint, "dense.safetensors")
    np.savez("images.npz", images=np.random.default_rng(0).random((64, 1, 8, 8), dtype=np.float32))
    outcome = finetune(*arguments)
    assert outcome.code == 1
    assert message in outcome.json["error"]
    assert outcome.json["hint"]
    assert {path.name for path in tmp_path.iterdir()} == {"dense.safetensors", "images.npz"}


def test_blocks_take_images_without_labels(finetune, digits_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.concatenate([batch for batch, _ in open_data("digits").training.batches(100)])
    np.savez("images.npz", images=images[:300])
    more = ["--data", "npz:images.npz", "--dense", digits_checkpoint, "--epochs", 2, "--mean", 0, "--std", 1]
    content = finetune("--method", "blocks", *more).json
    assert content["samples"] == 240
    assert content["evaluation"] == {"dense": None, "before": None, "after": None}
    assert content["held_out"]["after"]["logit_error"] < content["held_out"]["before"]["logit_error"]
