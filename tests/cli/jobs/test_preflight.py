"""What is said before pruning, and stands in the report: data that does not fit the network."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from calibration.data import open_data
from sparsegpt_cli.jobs.job import _chance


def save_digits(path, labels=lambda labels: labels, count=120):
    """Write evaluation digits with changed labels."""
    images, truth = next(iter(open_data("digits", mean=[0], std=[1]).evaluation.batches(count)))
    np.savez(path, images=images, labels=labels(truth))
    return f"npz:{path}"


@pytest.fixture
def prune_export(cli, digits_checkpoint, tmp_path):
    """Prune, and return the outcome and ``prune.json``."""

    def run(*options, weights=("--weights", digits_checkpoint)):
        out = tmp_path / "out"
        outcome = cli(
            "prune-export",
            "--layers=all",
            *weights,
            "--quality",
            "fast",
            "--no-baseline",
            "--quiet",
            "--out",
            out,
            *options,
        )
        kept = out / "prune.json"
        return outcome, json.loads(kept.read_text()) if kept.exists() else None

    return run


def test_a_network_that_fits_has_no_warning(prune_export):
    outcome, content = prune_export("--data", "digits")
    assert (outcome.code, outcome.err) == (0, "")
    assert content["warnings"] == []


def test_a_network_at_chance_is_said_before_pruning_and_in_the_report(prune_export, tmp_path):
    wrong = save_digits(tmp_path / "wrong.npz", lambda labels: (labels + 1) % 10)
    outcome, content = prune_export("--data", "digits", "--eval-data", wrong)
    assert outcome.code == 0
    (warning,) = content["warnings"]
    assert (
        "the dense network is no better than chance: top-1 is 0.00 % on 120 evaluation images of 10 classes" in warning
    )
    assert outcome.err.splitlines() == [f"warning: {warning}"]
    assert "no better than chance" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(("knows", "images"), [(range(10), [64]), ([0], [64, 256])], ids=["all", "one"])
def test_a_network_far_better_than_chance_is_seen_on_few_images(knows, images, tmp_path):
    """Images of a class are neighbours in the file. A network that always says class 0 is right on the first ones."""
    labels = np.arange(600) // 60
    pixels = np.broadcast_to(labels[:, None, None, None], (600, 1, 2, 2)).astype("f")
    seen = []

    class Reader(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            found = x[:, 0, 0, 0].round().long()
            return nn.functional.one_hot(torch.where(torch.isin(found, torch.tensor([*knows])), found, 0), 10).float()

    np.savez(tmp_path / "sorted.npz", images=pixels, labels=labels)
    split = open_data(f"npz:{tmp_path / 'sorted.npz'}", mean=[0], std=[1]).training
    warnings = _chance(Reader(), split, torch.device("cpu"), 0, 0)
    assert sum(seen) == sum(images)
    assert len(warnings) == len(images) - 1


def test_random_weights_are_in_the_report(prune_export):
    outcome, content = prune_export("--data", "digits", weights=("--model", "simple_cnn"))
    assert content["warnings"][0] == "no --weights: simple_cnn has random weights"
    assert outcome.err.splitlines()[0] == "warning: no --weights: simple_cnn has random weights"
    assert outcome.err.count("random weights") == 1


def test_pruned_weights_are_said(cli, prune_export, digits_checkpoint, tmp_path):
    pruned = tmp_path / "pruned.safetensors"
    options = ("--weights", digits_checkpoint, "--data", "digits", "--pattern", "1:4", "--method", "magnitude")
    assert cli("prune", "--layers=all", *options, "--out", pruned).code == 0
    _, content = prune_export("--data", "digits", weights=("--weights", pruned))
    assert "the weights are pruned already, to 1:4" in content["warnings"][0]


def test_a_folder_of_few_classes_and_a_network_of_many(cli, tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = np.random.default_rng([number, len(split)]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    data = ("--data", f"imagefolder:{tmp_path / 'photos'}", "--image-size", 16)
    model = ("--model", "simple_cnn", "--num-classes", 50)
    outcome = cli(
        "prune", "--layers=all", *model, *data, "--quality", "fast", "--out", tmp_path / "x.safetensors", "--json"
    )
    assert outcome.code == 0, outcome.err
    warning = outcome.json["warnings"][1]
    assert warning.startswith("the model has 50 outputs, imagefolder:")
    assert "2 classes: accuracy is right only if output 0 is cat" in warning
    assert "--num-classes 2 builds a model for these classes" in warning


def test_evaluation_labels_are_checked_before_pruning(prune_export, tmp_path, monkeypatch):
    from sparsegpt_cli.jobs import pipeline

    monkeypatch.setattr(pipeline, "_run_stages", lambda *_: pytest.fail("a stage ran"))
    large = save_digits(tmp_path / "large.npz", lambda labels: labels * 100)
    outcome, _ = prune_export("--data", "digits", "--eval-data", large)
    assert outcome.code == 1
    assert outcome.err == (
        "error: evaluation labels 0 to 900 do not fit a model of 10 outputs. Give the model's own data as --data or "
        "--eval-data.\n"
    )


def test_one_output_is_a_value_and_its_labels_are_no_classes(cli, tmp_path):
    (tmp_path / "age.py").write_text(
        "from torch import nn\n"
        "def layers(): return nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 1)\n"
        "def Age(): return nn.Sequential(*layers())\n"
    )
    data = save_digits(tmp_path / "ages.npz", lambda labels: labels + 50)
    options = ("--model", f"{tmp_path}/age.py:Age", "--data", "digits", "--eval-data", data, "--layers=all")
    outcome = cli("prune-export", *options, "--samples", 8, "--out", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    files = [str(tmp_path / "out" / f"{name}.onnx") for name in ("dense", "sparse")]
    compared = cli("benchmark", *files, "--runtime", "onnxruntime", "--eval-data", data, "--json")
    assert compared.code == 0, compared.err
    assert compared.json["accuracy"] is None


def test_a_failure_after_pruning_keeps_the_finished_stages(prune_export, tmp_path, monkeypatch):
    images = np.load(save_digits(tmp_path / "nan.npz", count=400).removeprefix("npz:"))
    content = dict(images)
    content["images"][17] = np.nan
    np.savez(tmp_path / "nan.npz", **content)
    from sparsegpt_cli.jobs import job

    monkeypatch.setattr(job, "_IMAGES", 1)  # the damaged image is seen by the evaluation only
    outcome, _ = prune_export("--data", "digits", "--eval-data", f"npz:{tmp_path / 'nan.npz'}")
    assert outcome.code == 1
    assert "error: image 17 contains NaN or infinity" in outcome.err
    assert (tmp_path / "out.unfinished").is_dir()
    outcome, content = prune_export("--data", "digits", "--eval-data", save_digits(tmp_path / "good.npz"))
    assert outcome.code == 0, outcome.err
    assert content["accuracy"]["dense"]["samples"] == 120


@pytest.mark.parametrize("scale", [1, 255])
def test_a_mean_on_the_scale_of_bytes_is_refused_for_other_images(cli, digits_checkpoint, tmp_path, scale):
    images = np.random.default_rng(0).random((12, 3, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "x.npz", images=(scale * images).astype(np.uint8) if scale == 255 else images)
    options = ("--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375")
    outcome = cli(
        "prune", "--model", "simple_cnn", "--data", f"npz:{tmp_path / 'x.npz'}", *options, "--out", "x.safetensors"
    )
    assert outcome.code == 1
    assert outcome.err == (
        "error: --mean or --std is on the scale 0..255, the images are on 0..1. "
        "Give --mean 0.485,0.456,0.406 and --std 0.229,0.224,0.225.\n"
    )


def test_float_images_up_to_255_with_the_mean_of_imagenet_are_refused(cli, tmp_path):
    images = 255 * np.random.default_rng(0).random((12, 3, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "x.npz", images=images)
    data = ("--data", f"npz:{tmp_path / 'x.npz'}")
    options = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--out", tmp_path / "x.safetensors")
    outcome = cli("prune", "--layers=all", "--model", "simple_cnn", *data, *options)
    assert outcome.code == 1
    assert outcome.err == (
        f"error: the images are floats up to {images.max():g}, --mean and --std are on the scale 0..1. Save the images "
        "as uint8, or give --mean 123.7,116.3,103.5 and --std 58.4,57.12,57.38.\n"
    )


def test_networks_that_scale_their_images_themselves_are_taken(tmp_path):
    """A mean and a standard deviation that are meant: of bytes, of raw floats, and of normalised floats."""
    generator = np.random.default_rng(0)
    bytes_ = generator.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "bytes.npz", images=bytes_)
    np.savez(tmp_path / "raw.npz", images=bytes_.astype(np.float32))
    np.savez(tmp_path / "normal.npz", images=generator.normal(size=(4, 3, 8, 8)))
    open_data(f"npz:{tmp_path / 'bytes.npz'}", mean=[0.0], std=[1 / 255])
    open_data(f"npz:{tmp_path / 'raw.npz'}")
    open_data(f"npz:{tmp_path / 'raw.npz'}", mean=[123.675], std=[58.395])
    open_data(f"npz:{tmp_path / 'normal.npz'}", mean=[0.1], std=[0.9])
