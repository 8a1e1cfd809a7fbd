"""The magnitude baseline prunes the layers that the sparse arm chose, with its quotas; also in a resumed run."""

from __future__ import annotations

from math import prod

import onnx
import pytest
import torch
from onnx import numpy_helper

from export.audit import read_metadata
from sparsegpt_cli.jobs import pipeline
from sparsegpt_cli.jobs.datasets import DataSource
from sparsegpt_cli.jobs.job import Job
from sparsegpt_cli.jobs.models import ModelSource, load
from sparsegpt_cli.messages import SILENT
from sparsegpt_core.files import sha256
from sparsegpt_core.patterns import NM, Unstructured
from sparsegpt_core.quality import Workflow
from sparsegpt_core.settings import PruneSettings

TWO_FOUR = NM(2, 4)


class Killed(Exception):
    pass


@pytest.fixture
def job(digits_checkpoint):
    """Return a function that makes a job on a newly loaded model."""

    def make(workflow, pattern=TWO_FOUR):
        loaded, opened = load(ModelSource(weights=digits_checkpoint), DataSource("digits"), SILENT)
        device = loaded.module.conv1.weight.device
        return Job(loaded, opened, PruneSettings(pattern), device, workflow, samples=64, eval_samples=50)

    return make


def metadata(folder, arm):
    return read_metadata(onnx.load(str(folder / f"{arm}.onnx")))


def zeros(folder, arm):
    """Return the number of zeros of each weight."""
    tensors = onnx.load(str(folder / f"{arm}.onnx")).graph.initializer
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors if tensor.name.endswith("weight")}
    return {name: int((weight == 0).sum()) for name, weight in weights.items()}


def test_the_baseline_leaves_the_same_layers_dense(job, tmp_path):
    pipeline.prune_export(job(Workflow(sparsity_budget=0.05)), tmp_path / "out")
    sparse, magnitude = (metadata(tmp_path / "out", arm) for arm in ("sparse", "magnitude"))
    assert "SENSITIVE" in sparse["dense"].values()
    assert magnitude["dense"] == sparse["dense"]
    assert magnitude["pruned"] == sparse["pruned"]


def test_the_baseline_follows_the_global_budget(job, tmp_path):
    content = pipeline.prune_export(job(Workflow(global_budget=True), Unstructured(0.7)), tmp_path / "out")
    found = zeros(tmp_path / "out", "magnitude")
    pruned = [layer for layer in content["layers"] if layer["status"] == "pruned"]
    for layer in pruned:
        share = found[f"{layer['name']}.weight"] / prod(layer["shape"])
        assert share == pytest.approx(layer["sparsity"], abs=0.005)
    assert len({round(layer["sparsity"], 2) for layer in pruned}) > 1


def test_a_resumed_run_gives_the_same_baseline(job, tmp_path, monkeypatch):
    def run(out, workflow):
        pipeline.prune_export(job(workflow), tmp_path / out, unfinished=tmp_path / f"{out}.unfinished")

    def fail(*_, **__):
        raise Killed

    budget = Workflow(sparsity_budget=0.05)
    run("whole", budget)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_magnitude", fail)
        with pytest.raises(Killed):
            run("resumed", budget)
    run("resumed", budget)
    for name in ("sparse.onnx", "sparse.safetensors", "magnitude.onnx"):
        assert sha256(tmp_path / "resumed" / name) == sha256(tmp_path / "whole" / name)


def test_another_target_makes_another_baseline(job):
    keys = [
        pipeline._stage_keys(job(workflow), torch.zeros(0)) for workflow in (Workflow(), Workflow(sparsity_budget=0.1))
    ]
    assert keys[0]["dense"] == keys[1]["dense"]
    assert keys[0]["magnitude"] != keys[1]["magnitude"]
