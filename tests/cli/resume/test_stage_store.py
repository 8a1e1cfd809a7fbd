"""A killed run resumes after its last finished stage; stages that a change affects run again."""

from __future__ import annotations

import dataclasses

import pytest

from export.exporter import ExportSettings
from sparsegpt_cli.jobs import pipeline as pipeline
from sparsegpt_cli.jobs.datasets import DataSource
from sparsegpt_cli.jobs.job import Job
from sparsegpt_cli.jobs.models import ModelSource, load
from sparsegpt_cli.resume import StageStore
from sparsegpt_cli.terminal import Console
from sparsegpt_core.files import read_json
from sparsegpt_core.settings import PruneSettings


class Killed(Exception):
    pass


def write(folder, name):
    def run():
        (folder / name).write_text(name)
        return {"wrote": name, "pair": (1, 2)}

    return run


def never():
    raise AssertionError("this stage was finished")


@pytest.fixture
def places(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    return files, tmp_path / "stages"


def test_a_stage_runs_once_and_returns_the_same_result_again(places):
    files, _ = places
    told = StageStore(*places, {"a": "1"}).once("a", write(files, "a.onnx"))
    assert told == {"wrote": "a.onnx", "pair": [1, 2]}
    assert StageStore(*places, {"a": "1"}).once("a", never) == told


@pytest.mark.parametrize("keys", [{"a": "2", "b": "1"}, {"b": "1"}])
def test_files_of_changed_or_dropped_stages_are_removed(places, keys):
    files, _ = places
    stages = StageStore(*places, {"a": "1", "b": "1"})
    stages.once("a", write(files, "a.onnx"))
    stages.once("b", write(files, "b.onnx"))
    (files / "scratch").mkdir()
    (files / ".half-written").touch()
    stages = StageStore(*places, keys)
    assert [path.name for path in files.iterdir()] == ["b.onnx"]
    stages.once("b", never)
    assert stages.unusable == [name for name in keys if name == "a"]


def damage_file(files, records):
    (files / "a.onnx").write_text("b")


def remove_file(files, records):
    (files / "a.onnx").unlink()


def damage_record(files, records):
    (records / "a.json").write_text("[]")


@pytest.mark.parametrize("harm", [damage_file, remove_file, damage_record])
def test_a_damaged_stage_runs_again(places, harm):
    files, _ = places
    StageStore(*places, {"a": "1"}).once("a", write(files, "a.onnx"))
    harm(*places)
    ran = StageStore(*places, {"a": "1"}).once("a", write(files, "a.onnx"))
    assert ran["wrote"] == (files / "a.onnx").read_text() == "a.onnx"


@pytest.fixture
def job(digits_checkpoint):
    def make(**changes):
        loaded, opened = load(ModelSource(weights=digits_checkpoint), DataSource("digits"), Console())
        settings = PruneSettings(include=("*",))
        made = Job(loaded, opened, settings, loaded.module.conv1.weight.device, samples=64, eval_samples=50)
        return dataclasses.replace(made, **changes)

    return make


def test_only_the_stages_that_a_change_affects_run_again(job, tmp_path, monkeypatch):
    done = []
    once = StageStore.once

    def note(self, name, run):
        def noted():
            done.append(name)
            return run()

        return once(self, name, noted)

    def fail(*_, **__):
        raise Killed

    monkeypatch.setattr(StageStore, "once", note)

    def start(said=None, **changes):
        done.clear()
        out, unfinished = tmp_path / "out", tmp_path / "out.unfinished"
        say = (lambda _: None) if said is None else said.append
        pipeline.prune_export(job(**changes), out, unfinished=unfinished, say=say)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "compare_versions", fail)
        with pytest.raises(Killed):
            start()
        assert done == ["dense", "sparse", "magnitude", "compare"]
        assert not (tmp_path / "out").exists()
        for changes, again in (
            ({}, []),
            ({"eval_samples": 40}, []),
            ({"samples": 65}, ["sparse"]),
            ({"settings": PruneSettings()}, ["sparse", "magnitude"]),
            ({"export": ExportSettings(opset=17)}, ["dense", "sparse", "magnitude"]),
        ):
            said = []
            with pytest.raises(Killed):
                start(said, **changes)
            assert done == [*again, "compare"], changes
            assert said == ([f"stages that run again: {', '.join(again)}"] if again else [])
    start(export=ExportSettings(opset=17), baseline=False)
    assert done == ["compare"]
    content = read_json(tmp_path / "out" / "prune.json")
    assert not (tmp_path / "out" / "magnitude.onnx").exists()
    assert content["accuracy"]["sparse"]["samples"] == 50
    assert content["seconds"]["export"] > 0
