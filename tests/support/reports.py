"""Run folders, real and hostile, for tests of the report."""

from __future__ import annotations

import copy
import functools
import json
import random
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.benchmark import BenchmarkResult
from deploy.benchmark.result import Timed
from deploy.builder import EngineLayer, SparsityLog
from deploy.explain import Evidence, explain
from deploy.measure import AccuracyReport, ArmAccuracy, Comparison, Difference, LatencyReport, Regime
from deploy.measure.latency import ArmLatency
from export.audit import AuditResult
from sparsegpt_cli.report import render, render_report
from sparsegpt_core.reasons import Reason
from tests.support.exports import audited
from tests.support.paths import ROOT

HOSTILE = (
    '"><img src=x onerror="document.title=\'run\'"><script>document.title="run"</script>$x_{$\u202e\ud800\x00 ]]> 层'
)
SCRIPT = (ROOT / "sparsegpt_cli" / "report" / "tables.js").read_text()
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
    """Return the files of a complete run folder as {file name: content}."""
    middle = [layer(i) for i in range(1, layers - 1)]
    if layers > 2:
        middle[0] = layer(1, "dense", "GROUPED")
    first = layer(0, "dense", "FIRST_LAYER", name="conv1", shape=[64, 3, 7, 7])
    last = layer(layers, "dense", "HEAD", name="fc", kind="Linear", shape=[10, 512])
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
            "prediction": {"bound": 1.18, "ceiling": 1.31, "eligible_share": 0.47, "verdict": "At most 1.18×."},
            "notes": [],
            "warnings": ["layer2.1.conv2: damping raised from 0.01 to 0.1"],
            "environment": {"python": "3.11.9", "cpu": "Intel Xeon", "cores": 2, "gpu": None,
                            "packages": {"torch": "2.8.0", "onnxruntime": "1.22.0"}},
        },
        "manifest.json": {"files": {"dense.onnx": {"sha256": digest, "bytes": 46_803_631},
                                    "sparse.onnx": {"sha256": digest, "bytes": 46_803_700},
                                    "sparse.fp16.onnx": {"sha256": digest, "bytes": 23_401_850}}},
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
    """Return a run in which every string that the report shows is an attack."""
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
    """The page's elements.

    ``explained`` has the texts that charts show on hover, ``problems`` tags that do not match, attributes that act or
    load, links to nowhere and scripts other than ours.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.problems: list[str] = []
        self.words: list[str] = []
        self.explained: list[str] = []
        self.scripts: list[str] = []
        self.links: list[str] = []
        self.feed(html)
        self.close()
        self.problems += [f"<{tag}> is not closed" for tag in self.open]
        self.problems += [f"{link} leads nowhere" for link in self.links if link.removeprefix("#") not in self.ids]
        if self.scripts != [SCRIPT] or self.tags["script"] != 1:
            self.problems.append(f"the scripts are {self.scripts}")

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
            if tag == "a" and name == "href":
                self.links.append(value or "")
            if name.startswith("on") or name == "src" or (name.endswith("href") and not (value or "").startswith("#")):
                self.problems.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> does not match")

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
        elif "title" in self.open and "svg" in self.open:
            self.explained.append(data)
        elif "style" not in self.open:
            self.words.append(data)


def read_page(run: Path) -> Page:
    return Page(render_report(run).read_text(encoding="utf-8"))


def key_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, item in pairs for p in [(*path, key), *key_paths(item, (*path, key))]]


SPARSE = "sm80_xmma_fprop_sparse_conv_interleaved_f16f16_f16_f32_nhwckrsc_nhwc_tilesize128x128x64_stage3_warpsize2x2x1"
DENSE = "sm80_xmma_fprop_implicit_gemm_f16f16_f16_f32_nhwckrsc_nhwc_tilesize128x64x64_stage5_warpsize2x2x1"
GPU = {
    **{"name": "NVIDIA A10", "compute_capability": "8.6", "driver": "580.65", "max_sm_mhz": 1695},
    **{"max_memory_mhz": 6251, "samples": 84, "sm_mhz": {"low": 1410.0, "median": 1680.0, "high": 1695.0}},
    "memory_mhz": {"low": 6251.0, "median": 6251.0, "high": 6251.0},
    "power_w": {"low": 61.2, "median": 148.7, "high": 150.3},
    "temperature_c": {"low": 41.0, "median": 56.0, "high": 61.0},
    **{"throttled": {"sw_power_cap": 0.25}, "locked": None, "steady": False},
}


@functools.cache
def engine_benchmark(layers: int = 20, rounds: int = 20) -> dict[str, Any]:
    """Return a benchmark of engines with every kind of layer; C is a tenth faster than A."""
    rng = np.random.default_rng(0)
    names = [f"layer{1 + index // 6}.{index // 2 % 3}.conv{1 + index % 2}" for index in range(layers)]
    audit = [audited(name, shape=(64 << index // 6, 64 << index // 6, 3, 3)) for index, name in enumerate(names)]
    audit[0] = audited("conv1", Reason.CHANNELS_NOT_MULTIPLE, shape=(64, 3, 7, 7))
    kernels = [DENSE, *(SPARSE if index >= 6 else DENSE for index in range(1, layers))]
    kernels[-1] = ""  # fused away
    fused = [f"{layer.name} + relu{index}" for index, layer in enumerate(audit)]
    seen = zip(fused, audit, kernels, strict=True)
    inspected = [EngineLayer(name, tactic=tactic or None, origins=(layer.name,)) for name, layer, tactic in seen]
    before = dict(zip(fused, rng.uniform(0.05, 0.15, layers), strict=True))
    after = {
        name: time / (1.3 if kernel is SPARSE else 1)
        for (name, time), kernel in zip(before.items(), kernels, strict=True)
    }
    evidence_b = Evidence(sparse_flag=False, layers=tuple(inspected), times=before, noise=dict.fromkeys(before, 0.01))
    evidence_c = Evidence(layers=tuple(inspected), times=after, log=SparsityLog(layers - 1, layers - 7))

    def arm(median: float) -> ArmLatency:
        times = median * (
            1 + 0.004 * rng.standard_normal((2, rounds, 10)) + 0.02 * rng.exponential(0.2, (2, rounds, 10))
        )
        times[1] *= 1.01
        return ArmLatency(tuple(tuple(map(tuple, engine.tolist())) for engine in times))

    arms = {"A": arm(2.71), "B": arm(2.7), "C": arm(2.44)}
    latency = LatencyReport("A", arms, arm(2.712), regime=Regime("gpu", False, True, 8))
    ratios = {"A_to_C": latency.speedup("A", "C"), "B_to_C": latency.speedup("B", "C")}
    pruned = {"difference": Difference(-0.17, -0.91, 0.58), "disagreement": 0.83, "kl": 0.0041}
    same = {"difference": Difference(0.0, 0.0, 0.0), "disagreement": 0.0, "kl": 1e-6}
    accuracy = {
        "dense": ArmAccuracy(98.33, 99.99, 0.061, 599),
        "sparse": ArmAccuracy(98.16, 99.99, 0.065, 599, **pruned),
    }
    accuracy |= {"A": ArmAccuracy(98.33, 99.99, 0.061, 599, **same)}
    accuracy |= {name: ArmAccuracy(98.16, 99.99, 0.065, 599, **pruned) for name in "BC"}
    explanation = explain(
        AuditResult("sparse.onnx", "2:4", tuple(audit)), evidence_c, evidence_b, ratios["A_to_C"], latency.noise, 8
    )
    build = {"plan": None, "sha256": "9f86d081" * 8, "bytes": 23_767_764, "seconds": 41.2, "eligible_layers": None}
    result = BenchmarkResult(
        runtime="tensorrt 10.9.0 on NVIDIA A10",
        compared=Comparison(AccuracyReport("dense", accuracy), None, None),
        timed=[
            Timed(latency, ratios, "", ("the GPU's clocks were held back: sw_power_cap",)),
            Timed(replace(latency, regime=replace(latency.regime, batch=32)), ratios),
        ],
        verdict=f"Top-1 accuracy 98.33 % dense. On engines: {explanation.verdict}",
        models={name: {"path": f"{name}.onnx", "sha256": ""} for name in ("dense", "sparse")},
        environment={"python": "3.10.12", "gpu": {"name": "NVIDIA A10"}},
        explanation=explanation,
        layer_times={"B": before, "C": after},
        layer_noise={"B": dict.fromkeys(before, 0.01), "C": dict.fromkeys(after, 0.01)},
        engines={name: [{**build, "chosen_layers": 13 if name == "C" else None}] * 2 for name in "ABC"},
        gpu=GPU,
    )
    return json.loads(json.dumps(result.to_json()))


def engine_run(**changes: Any) -> dict[str, Any]:
    """Return a run with a benchmark of engines; ``changes`` replace keys of benchmark.json."""
    return {**sample_run(6), "benchmark.json": {**copy.deepcopy(engine_benchmark()), **changes}}


def hostile_engine_run() -> dict[str, Any]:
    """Return the same with attacks for strings and for names of engines and clocks."""
    files = hostile_run(engine_run())
    measured = files["benchmark.json"]
    measured["runtime"] = f"tensorrt {HOSTILE}"
    measured["latency"][HOSTILE] = measured["latency"]["A"]
    measured["engines"][HOSTILE] = measured["engines"]["A"]
    measured["gpu"]["throttled"] = {HOSTILE: 0.5}
    measured["explanation"]["layers"][0]["shape"] = None
    return files


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
]
POLICY = re.compile(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>")


def browse(folder: Path, page: Path, *flags: str) -> str:
    """Return what the browser prints."""
    profile = folder / "profile"
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def without_policy(report: Path) -> Path:
    """Write a copy that lacks the Content-Security-Policy, so only the escaping protects it."""
    html, count = POLICY.subn("", report.read_text())
    assert count == 1
    copy = report.with_name("unprotected.html")
    copy.write_text(html)
    return copy


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("layer_charts", "tradeoff_chart", "accuracy_chart", "arms_chart", "distribution_chart"):
        monkeypatch.setattr(render, name, lambda *_: ["chart"])
