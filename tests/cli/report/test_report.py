"""The HTML report: its sentences, damaged and hostile input, and that it loads nothing from elsewhere."""

from __future__ import annotations

import contextlib
import copy
import functools
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsegpt_cli.report import render_report
from sparsegpt_cli.report.charts import LayerPoint, accuracy_chart, layer_charts
from sparsegpt_cli.report.fields import Fields
from sparsegpt_cli.report.formats import FILTERS
from sparsegpt_cli.report.view import read_run
from sparsegpt_core.errors import InputError
from sparsegpt_core.reasons import Reason
from sparsegpt_core.text import printable
from tests.support.reports import Page, engine_run, hostile_run, key_paths, read_page, sample_run, write_run


def test_a_full_run_is_shown_in_full(tmp_path: Path) -> None:
    page = read_page(write_run(tmp_path, sample_run()))
    assert not page.problems
    assert (
        "35 of 38 layers are 2:4. Top-1 accuracy went from 98.33 to 98.16 % "
        "(−0.17 points, 95 % interval −0.91 … +0.58), no statistically significant difference. "
        "0.83 % of 599 held-out images change class. "
        "Speed on a GPU has not been measured; the estimate is 1.18× the dense network's."
    ) in page.text.replace("\xa0", " ")
    for reason in (Reason.FIRST_LAYER, Reason.GROUPED, Reason.HEAD):
        assert reason.advice in page.text
    for phrase in (
        "damping raised",
        "8.6",
        "unknown",
        "onnxruntime 1.22.0 CPU",
        "5.020",
        "torch",
        "PyTorch 2.8.0, CPU",
    ):
        assert phrase in page.text
    assert "23 040 used" in page.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "Sparsity against error" in page.text
    assert "No TensorRT engine ran here" in page.text
    assert page.text.count("Only parsed and built.") == 1
    assert page.tags["svg"] == 3
    assert len(page.ids) == len(set(page.ids))


def test_the_accuracy_of_int8_files_is_shown(tmp_path: Path, no_charts: None) -> None:
    files = sample_run(4)
    accuracy = files["prune.json"]["accuracy"]
    accuracy["dense.int8"] = {**accuracy["sparse"], "top1": 98.01}
    accuracy["sparse.int8"] = {**accuracy["sparse"], "top1": 97.99}
    view = read_run(write_run(tmp_path, files))
    assert [arm.name for arm in view.arms] == ["Dense", "Dense, INT8", "Magnitude", "SparseGPT", "SparseGPT, INT8"]
    assert [name for name, *_ in view.differences] == ["Dense, INT8", "Magnitude", "SparseGPT", "SparseGPT, INT8"]
    assert "SparseGPT, INT8 97.99" in read_page(tmp_path).text


def first_screen(page: Page) -> str:
    return page.text[: page.text.index("Layers Audit")].replace("\xa0", " ")


def test_the_first_screen_says_what_matters_and_what_to_do(tmp_path: Path, no_charts: None) -> None:
    files = sample_run(4)
    files["prune.json"]["settings"]["max_disagreement"] = 0.5
    files["prune.json"]["data"]["evaluation"] = "npz:val.npz"
    files["prune.json"]["notes"] = ["sparse.fp16.onnx: 22 weights underflow FP16"]
    text = first_screen(read_page(write_run(tmp_path, files)))
    for phrase in (
        "resnet18_cifar, weights dense.safetensors",
        "The target was that at most 0.50 % of held-out images change class; on the evaluation images it is missed.",
        "of the images change class 0.83 %",
        "as fast as the dense network, estimated 1.18×",
        "is the file to deploy, in FP16 sparse.fp16.onnx",
        "damping raised",
        "benchmark dense.fp16.onnx sparse.fp16.onnx --data digits --eval-data npz:val.npz --out benchmark.json",
    ):
        assert phrase in text, phrase
    assert "whole run" not in text
    assert "underflow" not in text
    assert "sparse.fp16.onnx: 22 weights underflow FP16" in read_page(tmp_path).text
    assert "Audit of sparse.onnx (FP32): 1 layers satisfy 2:4, all 1 eligible" in read_page(tmp_path).text


def test_random_weights_are_in_the_title(tmp_path: Path, no_charts: None) -> None:
    files = sample_run(4)
    files["prune.json"]["model"]["weights"] = None
    assert "resnet18_cifar, random weights" in first_screen(read_page(write_run(tmp_path, files)))


def test_a_lost_accuracy_is_followed_by_the_way_to_recover_it(tmp_path: Path, no_charts: None) -> None:
    files = sample_run(4)
    assert "finetune" not in first_screen(read_page(write_run(tmp_path, files)))
    files["prune.json"]["accuracy"]["sparse"]["difference"] = {"value": -2.0, "low": -3.0, "high": -1.0}
    text = first_screen(read_page(write_run(tmp_path, files)))
    assert "sparsegpt-trt finetune --weights sparse.safetensors --out finetuned.safetensors" in text
    assert "significant" not in text


def test_networks_without_classes_show_the_error_of_each_output(tmp_path: Path, no_charts: None) -> None:
    files = sample_run(4)
    files["prune.json"]["accuracy"] = None
    errors = {"boxes": 0.031, "scores": 0.12}
    files["prune.json"]["outputs"] = {"samples": 80, "relative_errors": {"magnitude": errors, "sparse": errors}}
    text = first_screen(read_page(write_run(tmp_path, files)))
    assert "Relative error of each output against the dense network, on 80 images: boxes 0.031, scores 0.12." in text
    assert "relative error of scores, the largest 0.12" in text
    assert "Accuracy has not been measured" not in text


def test_a_metric_is_shown_for_every_version(tmp_path: Path, no_charts: None) -> None:
    files = sample_run(4)
    lost = {"value": -0.31, "low": -0.52, "high": -0.1}
    versions = {"dense": {"value": 71.23}, "sparse": {"value": 70.92, "difference": lost}}
    versions["sparse.fp16"] = {"value": 70.91, "difference": lost}
    figure = {"higher_is_better": True, "interval": "jackknife", "samples": 500, "versions": versions}
    files["prune.json"]["metrics"] = files["benchmark.json"]["metrics"] = {"miou": figure}
    page = read_page(write_run(tmp_path, files))
    assert "miou 71.23 → 70.91" in first_screen(page)
    assert page.text.count("miou higher sparse.fp16 70.91 −0.31 −0.52 … −0.1 500") == 2


def test_a_built_and_measured_engine_is_deployed_next(tmp_path: Path, no_charts: None) -> None:
    files = engine_run()
    digest = files["manifest.json"]["files"]["sparse.fp16.onnx"]["sha256"]
    assert "Build the engine: sparsegpt-trt build sparse.fp16.onnx" in first_screen(
        read_page(write_run(tmp_path / "measured", files))
    )
    files["sparse.plan.json"]["onnx"] = {"path": "sparse.fp16.onnx", "sha256": digest}
    text = first_screen(read_page(write_run(tmp_path / "built", files)))
    assert "sparsegpt-trt triton-export sparse.fp16.onnx --out triton" in text


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    html = render_report(write_run(tmp_path, sample_run(5))).read_text()
    assert "@import" not in html
    assert "url(http" not in html
    assert "default-src 'none'" in html


def test_a_large_network_is_split_into_charts_that_a_page_can_hold(tmp_path: Path) -> None:
    page = read_page(write_run(tmp_path, sample_run(150)))
    assert not page.problems
    assert page.tags["svg"] == 4 + 2  # layers, the trade-off, accuracy
    assert page.text.count("layer1.3.conv3") == 2  # in a chart and in the table
    assert len(page.ids) == len(set(page.ids))


def test_charts_say_their_values_on_hover(tmp_path: Path) -> None:
    page = read_page(write_run(tmp_path, sample_run(12)))
    explained = [text.replace("\xa0", " ") for text in page.explained]
    assert "fc: dense" in explained
    assert "Magnitude: −1.84 points (−3.11 … −0.55)" in explained
    assert "weights that are zero, %: 50; images that changed class, %: 0.3" in explained
    (error,) = {text for text in explained if text.startswith("layer1.0.conv3: ")}
    number = r"\d\.?\d*(e−\d\d)?"
    assert re.fullmatch(f"layer1.0.conv3: SparseGPT {number}, magnitude {number}, 50.0 % zeros", error)


def test_a_page_of_200_layers_stays_small(tmp_path: Path) -> None:
    assert render_report(write_run(tmp_path, sample_run(200))).stat().st_size < 600_000


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    page = read_page(write_run(tmp_path, hostile_run()))
    assert not page.problems
    assert "img" not in page.tags
    assert page.text.count("<script>document.title=") > 40
    assert "\u202e" not in page.text
    assert any("</script>" in word and word.startswith("…") for word in page.words)  # in the chart, shortened


def test_same_files_same_bytes(tmp_path: Path) -> None:
    first = render_report(write_run(tmp_path / "a", sample_run(4))).read_bytes()
    assert render_report(write_run(tmp_path / "b", sample_run(4))).read_bytes() == first
    assert render_report(tmp_path / "a").read_bytes() == first


@pytest.mark.parametrize("content", [{}, {"layers": []}, {"layers": [{}]}, {"layers": [{"name": "conv1"}]}])
def test_missing_pieces_name_the_command_that_adds_them(tmp_path: Path, content: dict[str, Any]) -> None:
    page = read_page(write_run(tmp_path, {"prune.json": content}))
    assert not page.problems
    for command in (
        "verify",
        "prune-export",
        "build sparse.fp16.onnx",
        "benchmark dense.fp16.onnx sparse.fp16.onnx",
    ):
        assert f"sparsegpt-trt {command}" in page.text
    assert "Accuracy has not been measured." in page.text


def test_a_speedup_on_a_gpu_is_shown_as_one(tmp_path: Path, no_charts: None) -> None:
    files = sample_run(4)
    files["benchmark.json"].update(
        runtime="tensorrt 10.16 on NVIDIA A10",
        verdict="1.08 times as fast.",
        speedup={"A_to_C": {"ratio": 1.08, "low": 1.05, "high": 1.1}},
    )
    page = read_page(write_run(tmp_path, files))
    assert "No TensorRT engine ran" not in page.text
    assert "Speed on a GPU has not been measured" not in page.text
    assert page.text.count("1.08 times as fast.") == 2
    assert "1.080×" in page.text


@pytest.mark.parametrize(
    ("name", "content", "phrase"),
    [
        ("prune.json", None, "prune.json"),
        ("prune.json", "{", "prune.json is not a JSON file"),
        ("prune.json", "[]", "prune.json does not contain a JSON object"),
        ("prune.json", '{"layers": {}}', "prune.json: layers is not a list of objects"),
        ("prune.json", '{"layers": [{"sparsity": "half"}]}', r"prune.json: layers\[0\].sparsity is not a number"),
        ("prune.json", '{"layers": [{"shape": [1.5]}]}', r"layers\[0\].shape is not a list of integers"),
        (
            "prune.json",
            '{"accuracy": {"dense": {"top1": NaN}}}',
            "accuracy.dense.top1 is not a number of sensible size",
        ),
        ("prune.json", f'{{"peak_memory_bytes": 1{"0" * 400}}}', "not a number of sensible size"),
        ("prune.json", '{"warnings": "one"}', "warnings is not a list"),
        ("manifest.json", '{"files": []}', "manifest.json: files is not an object"),
        ("benchmark.json", "\x00", "benchmark.json is not a JSON file"),
        ("sparse.plan.json", '{"sparse_flag": 1}', "sparse.plan.json: sparse_flag is not true or false"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, no_charts: None, name: str, content: str | None, phrase: str) -> None:
    write_run(tmp_path, sample_run(3))
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=phrase) as caught:
        render_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    if content is None:
        assert "prune-export" in caught.value.hint


def test_a_missing_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        render_report(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_any_key_may_be_missing_and_a_wrong_one_is_an_input_error(tmp_path: Path, no_charts: None) -> None:
    full = sample_run(2)
    for file in full:
        for *way, key in key_paths(full[file]):
            damaged = copy.deepcopy(full)
            parent = functools.reduce(lambda value, step: value[step], way, damaged[file])
            parent[key] = ["x"]
            write_run(tmp_path, damaged)
            with contextlib.suppress(InputError):
                render_report(tmp_path)
            if isinstance(parent, dict):
                parent[key] = None
                render_report(write_run(tmp_path, damaged))


errors = st.none() | st.sampled_from([0.0, 1e-300, 0.02, 1e15]) | st.floats(0, 10)


names = st.text(max_size=60).map(printable)


points = st.builds(LayerPoint, names, st.none() | st.floats(0, 1), errors, errors)


@settings(max_examples=12, deadline=None)
@given(st.lists(points, max_size=5), names)
def test_charts_are_well_formed_for_any_names_and_errors(layers: list[LayerPoint], method: str) -> None:
    for chart in layer_charts(layers, method):
        ET.fromstring(chart)


def test_one_layer_and_no_errors() -> None:
    (chart,) = layer_charts([LayerPoint("conv", 0.5, None, None)], "SparseGPT")
    assert "conv" in chart
    assert "SparseGPT" not in chart


def test_accuracy_chart_shows_each_arm() -> None:
    chart = accuracy_chart([("Magnitude", -1.8, -3.1, -0.5), ("Sparse <&>", 0.0, 0.0, 0.0)])
    assert "Sparse &lt;&amp;&gt;" in chart
    ET.fromstring(chart)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("fixed", 98.333, "98.33"),
        ("signed", -0.2, "−0.20"),
        ("signed", -0.001, "0.00"),
        ("percent", 0.5, "50.0 %"),
        ("significant", 4.4e-7, "4.4e−07"),
        ("count", 11173962, "11 173 962"),
        ("size", 999, "999 B"),
        ("size", 46_803_631, "46.8 MB"),
        ("size", 999_960_000, "1.0 GB"),
        ("duration", 0.421, "0.42 s"),
        ("duration", 59.97, "1 min 00 s"),
        ("duration", 185, "3 min 05 s"),
        ("shape", [64, 3, 7, 7], "64 × 3 × 7 × 7"),
        ("shape", [], "–"),
        ("yes_no", False, "no"),
    ],
)
def test_numbers_are_formatted_for_people(name: str, value: Any, shown: str) -> None:
    assert " ".join(FILTERS[name](value).split()) == shown


@pytest.mark.parametrize("name", sorted(set(FILTERS) - {"interval", "shape"}))
def test_what_was_not_measured_is_a_dash(name: str) -> None:
    assert FILTERS[name](None) == "–"
    assert FILTERS["interval"](Fields({}, Path("x"))) == "–"


def test_results_of_another_run_are_left_out_and_reported(tmp_path: Path) -> None:
    files = sample_run()
    digest = files["manifest.json"]["files"]["dense.onnx"]["sha256"]
    files["dense.plan.json"]["onnx"] = {"path": "dense.onnx", "sha256": digest}
    files["sparse.plan.json"]["onnx"] = {"path": "sparse.onnx", "sha256": "0" * 64}
    files["benchmark.json"]["models"] = {"dense": {"sha256": digest}, "sparse": {"sha256": "0" * 64}}
    view = read_run(write_run(tmp_path / "run", files))
    assert [name for name, _ in view.engines] == ["dense.plan"]
    assert not view.benchmark
    assert [note.partition(" ")[0] for note in view.warnings[1:]] == ["sparse.plan", "benchmark.json"]
