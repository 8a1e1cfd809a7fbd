"""The HTML report: what it says, what it withstands, and that it stands alone."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import random
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsegpt_cli.report import render, render_report
from sparsegpt_cli.report.charts import LayerPoint, accuracy_chart, layer_charts
from sparsegpt_cli.report.fields import Fields
from sparsegpt_cli.report.formats import FILTERS
from sparsegpt_cli.report.view import read_run
from sparsegpt_core.errors import InputError
from sparsegpt_core.printable import printable
from sparsegpt_core.reasons import Reason

HOSTILE = (
    '"><img src=x onerror="document.title=\'run\'"><script>document.title="run"</script>$x_{$\u202e\ud800\x00 ]]> 层'
)
VOID = {"meta", "img", "br", "link", "input", "hr"}


def layer(index: int, status: str = "pruned", reason: str | None = None, **extra: Any) -> dict[str, Any]:
    rng = random.Random(index)
    magnitude = 10 ** rng.uniform(-3, -0.7)
    measured = status == "pruned"
    return {
        "name": f"layer{1 + index // 40}.{index // 4}.conv{1 + index % 4}",
        "kind": "Conv2d",
        "shape": [128, 64, 3, 3],
        "status": status,
        "reason": reason,
        "sparsity": 0.5 if measured else 0.0,
        "relative_error": magnitude * rng.uniform(0.2, 0.6) if measured else None,
        "magnitude_error": magnitude if measured else None,
        "damping": 0.01 if measured else None,
        "positions": 100352 if measured else None,
        "positions_used": 23040 if measured else None,
        "seconds": 0.42,
        **extra,
    }


def sample_run(layers: int = 38) -> dict[str, Any]:
    """The files of a run folder with everything in it, as {file name: content}."""
    middle = [layer(i) for i in range(1, layers - 1)]
    if layers > 2:
        middle[0] = layer(1, "dense", "GROUPED")
    first = layer(0, "dense", "FIRST_LAYER", name="conv1", shape=[64, 3, 7, 7])
    last = layer(layers, "dense", "CLASSIFIER", name="fc", kind="Linear", shape=[10, 512])
    arms = {
        "dense": {"top1": 98.33, "top5": 99.99, "loss": 0.0612, "samples": 599},
        "magnitude": {
            "top1": 96.49, "top5": 99.8, "loss": 0.1201, "samples": 599,
            "difference": {"value": -1.84, "low": -3.11, "high": -0.55}, "disagreement": 2.67, "kl": 0.0571,
        },
        "sparse": {
            "top1": 98.16, "top5": 99.99, "loss": 0.0655, "samples": 599,
            "difference": {"value": -0.17, "low": -0.91, "high": 0.58}, "disagreement": 0.83, "kl": 0.00412,
        },
    }  # fmt: skip
    parity = {"max_abs": 1.9e-5, "mean_abs": 2.1e-6, "relative": 4.4e-7, "top1_agreement": 100.0, "samples": 64}
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    return {
        "prune.json": {
            "tool": {"name": "sparsegpt-trt", "version": "0.1.0"},
            "created": "2026-11-22T05:10:00+00:00",
            "command": "sparsegpt-trt prune-export --model resnet18_cifar --weights dense.safetensors --data digits",
            "model": {"spec": "resnet18_cifar", "weights": "dense.safetensors", "weights_sha256": digest,
                      "parameters": 11173962},
            "data": {"spec": "digits", "evaluation": "digits", "samples": 512, "mean": [0.305], "std": [0.376]},
            "settings": {"method": "sparsegpt", "pattern": "2:4", "damping": 0.01, "blocksize": 128,
                         "include": [], "exclude": [], "seed": 0},
            "tradeoff": {
                "points": [
                    {"left_dense": "", "sparsity": 0.5, "error": 0.1},
                    {"left_dense": "layer1.0.conv2", "sparsity": 0.2, "error": 0},
                ],
                "measured": [{"dense_layers": 0, "sparsity": 0.5, "disagreement": 0.3}],
            },
            "layers": [first, *middle, last][:layers],
            "accuracy": {**arms, "runtime": "PyTorch 2.8.0, CPU"},
            "parity": {"dense": parity, "sparse": parity},
            "audit": {"sparse": {"model": "sparse.onnx", "pattern": "2:4", "layers": [],
                                 "sparse_layers": layers - 3, "eligible_layers": layers - 3}},
            "seconds": {"total": 81.4, "forward": 9.1, "statistics": 30.2, "solve": 36.0, "export": 3.1,
                        "evaluate": 3.0},
            "peak_memory_bytes": 1_874_000_000,
            "warnings": ["layer2.1.conv2: damping raised from 0.01 to 0.1"],
            "environment": {"python": "3.11.9", "cpu": "Intel Xeon", "cores": 2, "gpu": None,
                            "packages": {"torch": "2.8.0", "onnxruntime": "1.22.0"}},
        },
        "manifest.json": {"files": {"dense.onnx": {"sha256": digest, "bytes": 46_803_631},
                                    "sparse.onnx": {"sha256": digest, "bytes": 46_803_700}}},
        "dense.plan.json": {
            "plan": "dense.plan", "backend": "tensorrt-rtx", "backend_version": "1.7.1.116", "sparse_flag": False,
            "compute_capability": "8.6", "eligible_layers": 0, "chosen_layers": None, "note": "Only parsed and built.",
            "seconds": 0.31, "bytes": 23_767_764, "sha256": digest,
        },
        "sparse.plan.json": {
            "plan": "sparse.plan", "backend": "tensorrt-rtx", "backend_version": "1.7.1.116", "sparse_flag": True,
            "compute_capability": "8.6", "eligible_layers": layers - 3, "chosen_layers": None,
            "note": "Only parsed and built.", "seconds": 0.33, "bytes": 23_767_900, "sha256": digest,
        },
        "benchmark.json": {
            "runtime": "onnxruntime 1.22.0 CPU",
            "accuracy": {key: {k: arms[key][k] for k in ("top1", "top5", "loss", "samples")}
                         for key in ("dense", "sparse")} | {"difference": arms["sparse"]["difference"]},
            "latency": {"dense": {"p50_ms": 4.213, "p95_ms": 4.51, "p99_ms": 5.02, "samples": 400},
                        "sparse": {"p50_ms": 4.209, "p95_ms": 4.49, "p99_ms": 5.11, "samples": 400}},
            "speedup": {"A_to_C": None, "B_to_C": None,
                        "dense_to_sparse": {"ratio": 1.001, "low": 0.995, "high": 1.008}},
            "noise": 0.004,
            "verdict": "Accuracy fell by 0.17 points; ONNX Runtime does not use 2:4 zeros.",
        },
    }  # fmt: skip


def write_run(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def hostile_run(files: dict[str, Any] | None = None) -> dict[str, Any]:
    """A full run, or the one given, in which every string that the report shows as it is, is an attack."""
    files = files or sample_run(6)

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v, key) for v in value]
        return HOSTILE if isinstance(value, str) and key != "status" else value

    files = {name: spoil(content) for name, content in files.items()}
    files["manifest.json"]["files"][HOSTILE] = {"sha256": HOSTILE, "bytes": 1}
    files["benchmark.json"]["latency"][HOSTILE] = {"p50_ms": 1.0}
    files["prune.json"]["parity"][HOSTILE] = {"samples": 1}
    return files


class Page(HTMLParser):
    """The page's elements; ``problems`` names tags that do not match and attributes that act or load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.problems: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        self.problems += [f"<{tag}> is not closed" for tag in self.open]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("on") or name == "src" or (name.endswith("href") and not (value or "").startswith("#")):
                self.problems.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> does not match")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def read_page(run: Path) -> Page:
    return Page(render_report(run).read_text(encoding="utf-8"))


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("layer_charts", "tradeoff_chart", "accuracy_chart", "arms_chart", "distribution_chart"):
        monkeypatch.setattr(render, name, lambda *_: ["chart"])


def test_a_full_run_is_told_in_full(tmp_path: Path) -> None:
    page = read_page(write_run(tmp_path, sample_run()))
    assert not page.problems
    assert (
        "35 of 38 layers are 2:4. Top-1 accuracy went from 98.33 to 98.16 % "
        "(−0.17 points, 95 % interval −0.91 … +0.58) on 599 held-out images, too few to tell that change from none. "
        "Speed on a GPU has not been measured."
    ) in page.text.replace("\xa0", " ")
    for reason in (Reason.FIRST_LAYER, Reason.GROUPED, Reason.CLASSIFIER):
        assert reason.advice in page.text
    for said in ("damping raised", "8.6", "unknown", "onnxruntime 1.22.0 CPU", "5.020", "torch", "PyTorch 2.8.0, CPU"):
        assert said in page.text
    assert "23 040 used" in page.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "Sparsity against error" in page.text
    assert "No TensorRT engine ran here" in page.text
    assert page.text.count("Only parsed and built.") == 1
    assert page.tags["svg"] == 3
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in page.tags


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
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


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    page = read_page(write_run(tmp_path, hostile_run()))
    assert not page.problems
    assert "script" not in page.tags
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
    for command in ("verify", "prune-export", "build sparse.onnx --sparse", "benchmark"):
        assert f"sparsegpt-trt {command}" in page.text
    assert "Accuracy has not been measured." in page.text


def test_a_figure_of_a_gpu_is_told_as_one(tmp_path: Path, no_charts: None) -> None:
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
    ("name", "content", "said"),
    [
        ("prune.json", None, "prune.json"),
        ("prune.json", "{", "prune.json is not a JSON file"),
        ("prune.json", "[]", "prune.json does not hold a JSON object"),
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
def test_damaged_files_are_named(tmp_path: Path, no_charts: None, name: str, content: str | None, said: str) -> None:
    write_run(tmp_path, sample_run(3))
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        render_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    if content is None:
        assert "prune-export" in caught.value.hint


def test_no_folder_at_all(tmp_path: Path) -> None:
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


def key_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, item in pairs for p in [(*path, key), *key_paths(item, (*path, key))]]


errors = st.none() | st.sampled_from([0.0, 1e-300, 0.02, 1e15]) | st.floats(0, 10)
names = st.text(max_size=60).map(printable)
points = st.builds(LayerPoint, names, st.none() | st.floats(0, 1), errors, errors)


@settings(max_examples=12, deadline=None)
@given(st.lists(points, max_size=5), names)
def test_charts_are_well_formed_whatever_the_names_and_errors(layers: list[LayerPoint], method: str) -> None:
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
def test_numbers_as_people_read_them(name: str, value: Any, shown: str) -> None:
    assert " ".join(FILTERS[name](value).split()) == shown


@pytest.mark.parametrize("name", sorted(set(FILTERS) - {"interval", "shape"}))
def test_what_was_not_measured_is_a_dash(name: str) -> None:
    assert FILTERS[name](None) == "–"
    assert FILTERS["interval"](Fields({}, Path("x"))) == "–"


def test_results_of_another_run_are_left_out_and_said(tmp_path: Path) -> None:
    files = sample_run()
    digest = files["manifest.json"]["files"]["dense.onnx"]["sha256"]
    files["dense.plan.json"]["onnx"] = {"path": "dense.onnx", "sha256": digest}
    files["sparse.plan.json"]["onnx"] = {"path": "sparse.onnx", "sha256": "0" * 64}
    files["benchmark.json"]["models"] = {"dense": {"sha256": digest}, "sparse": {"sha256": "0" * 64}}
    view = read_run(write_run(tmp_path / "run", files))
    assert [name for name, _ in view.engines] == ["dense.plan"]
    assert not view.benchmark
    assert [note.partition(" ")[0] for note in view.warnings[1:]] == ["sparse.plan", "benchmark.json"]
