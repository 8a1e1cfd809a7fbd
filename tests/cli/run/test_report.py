"""The report of a ``run`` contains the results of all its stages."""

import re

import pytest

from sparsegpt_cli.report.view import read_run

CONFIG = """
data: digits
train: {model: simple_cnn, epochs: 1, batch-size: 64}
prune-export: {layers: all, samples: 32, quality: fast, baseline: false, eval-samples: 100}
finetune: {epochs: 1, learning-rate: 1e-3}
export: {precision: fp16}
verify:
predict: {model: $OUT/dense.onnx}
build: {compute-capability: 8.6}
benchmark: {quick: true, runtime: onnxruntime, eval-samples: 100}
report:
"""


def test_the_report_of_a_run_contains_what_was_made_of_the_fine_tuned_network(cli, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is an optional extra")
    config, out = tmp_path / "run.yaml", tmp_path / "out"
    config.write_text(CONFIG)
    outcome = cli("run", config, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    view = read_run(out)
    assert view.stale == []
    assert [name for name, _ in view.engines] == ["finetuned.plan"]
    assert view.benchmark
    finetuned = view.arms[-1]
    compared = outcome.json["stages"]["benchmark"]["accuracy"]
    measured = compared["sparse"]
    assert (finetuned.name, finetuned.accuracy.number("top1")) == ("Fine-tuned, FP16", measured["top1"])
    assert view.reference.accuracy.number("loss") == compared["dense"]["loss"]  # of the same precision
    assert finetuned.difference.number("low") == measured["difference"]["low"]
    text = re.sub(r"<[^>]*>|\s+", " ", (out / "report.html").read_text())
    for phrase in (
        "After fine-tuning: Top-1 accuracy went from",
        "finetuned.onnx",
        "of another run",
        outcome.json["stages"]["predict"]["verdict"],
    ):
        assert (phrase in text) is (phrase != "of another run"), phrase

    (out / "benchmark.json").unlink()  # the accuracy that finetune measured stands in
    (arm,) = [arm for arm in read_run(out).arms if arm.key == "finetuned"]
    assert arm.accuracy.number("top1") == outcome.json["stages"]["finetune"]["evaluation"]["after"]["top1"]

    (out / "finetuned.safetensors").unlink()  # nothing shows from which network the files were made
    assert [note.partition(" ")[0] for note in read_run(out).stale] == ["finetuned.plan"]
