"""Explanations from audit, log, inspector and times, on made-up engines with known answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.builder import EngineLayer, SparsityLog, read_sparsity
from deploy.explain import Evidence, ExplainedLayer, Explanation, explain
from deploy.measure import Ratio
from deploy.predict import read_profile
from export.audit import AuditedLayer, AuditResult
from sparsegpt_core.files import write_json
from sparsegpt_core.reasons import Reason
from tests.support.exports import audited
from tests.support.paths import ROOT

SPARSE, DENSE = "sm80_xmma_fprop_sparse_conv_f16", "sm80_xmma_fprop_implicit_gemm_f16"
LOGS = ROOT / "tests" / "data" / "build_logs"


def audit(*layers: AuditedLayer) -> AuditResult:
    return AuditResult("sparse.onnx", "2:4", layers)


def kernel(name: str, tactic: str | None = None, *origins: str, **others: Any) -> EngineLayer:
    return EngineLayer(name, tactic=tactic, origins=origins or tuple(name.split(" + ")), **others)


STEM, SMALL = audited("conv1", Reason.CHANNELS_NOT_MULTIPLE), audited("small", shape=(64, 64, 3, 3))
LARGE, WASTED, HIDDEN = audited("large"), audited("wasted"), audited("hidden")
NETWORK = audit(STEM, SMALL, LARGE, WASTED, HIDDEN)
C = Evidence(
    layers=(
        kernel("Reformatting CopyNode for Input Tensor 0 to conv1 + relu1", None, "?"),
        kernel("conv1 + relu1", DENSE),
        kernel("small + relu2", DENSE, has_sparse_weights=True),
        kernel("large_myl0_1", SPARSE, "node_of_large", has_sparse_weights=True),
        kernel("wasted", SPARSE),
        kernel("{ForeignNode[hidden...relu]}"),
    ),
    times={"conv1 + relu1": 0.5, "small + relu2": 1.0, "large_myl0_1": 2.0, "wasted": 1.0, "myelin": 0.5},
    log=SparsityLog(4, 2),
)
B = Evidence(
    sparse_flag=False,
    layers=(kernel("conv1 + relu1"), kernel("small + relu2"), kernel("large"), kernel("wasted"), kernel("hidden")),
    times={"conv1 + relu1": 1.0, "small + relu2": 1.0, "large": 3.0, "wasted": 1.0, "hidden": 1.0, "pool": 1.0},
)


def rows(explanation: Explanation) -> dict[str, ExplainedLayer]:
    return {layer.name: layer for layer in explanation.layers}


def test_a_row_combines_all_sources() -> None:
    found = rows(explain(NETWORK, C, B))
    expected = {
        "conv1": (False, False, DENSE, 1.0, 0.5, 1.0, Reason.CHANNELS_NOT_MULTIPLE),
        "small": (True, False, DENSE, 1.0, 1.0, 1.0, Reason.SMALL_CHANNELS),
        "large": (True, True, SPARSE, 3.0, 2.0, 1.5, None),
        "wasted": (True, True, SPARSE, 1.0, 1.0, 1.0, Reason.CHOSEN_NO_GAIN),
        "hidden": (True, None, None, 1.0, None, None, Reason.OPAQUE),
    }
    for name, row in found.items():
        times = row.time_b_ms, row.time_c_ms, row.gain
        assert (row.eligible, row.chosen, row.tactic, *times, row.reason) == expected[name]
        assert row.advice == (row.reason.advice if row.reason else "")
    assert found["large"].engine_layer == "large_myl0_1"
    assert [found[name].has_sparse_weights for name in ("small", "large", "wasted")] == [True, True, None]
    assert (found["small"].shape, found["small"].op, found["small"].groups) == ((64, 64, 3, 3), "Conv", 1)


def test_the_summary_of_all_layers() -> None:
    whole = explain(NETWORK, C, B)
    assert (whole.eligible_layers, whole.chosen_layers) == (4, 2)  # hidden is unknown, so the log's count stands in
    assert whole.eligible_share == pytest.approx(6 / 8)
    assert whole.ceiling == pytest.approx(1 / (1 - 6 / 16))
    assert explain(NETWORK, C).eligible_share is None


def test_a_share_needs_the_time_of_every_eligible_layer() -> None:
    part = Evidence(times={"large": 1.0, "pool": 1.0})
    assert explain(audit(LARGE), Evidence(), part).eligible_share == 0.5
    assert explain(audit(LARGE, WASTED), Evidence(), part).eligible_share is None


def test_a_kernel_shared_with_an_ineligible_layer_is_not_eligible_time() -> None:
    dense = Evidence(
        layers=(kernel("a || b", None, "large", "conv1"), kernel("wasted")), times={"a || b": 3, "wasted": 1}
    )
    assert explain(audit(STEM, LARGE, WASTED), Evidence(), dense).eligible_share == 0.25


def test_a_layer_in_several_kernels() -> None:
    parts = (kernel("bias", "__myl", "large"), kernel("gemm", SPARSE, "large"), kernel("late", "__myl_2", "large"))
    (row,) = explain(audit(LARGE), Evidence(layers=parts, times={"gemm": 2.0, "bias": 0.5})).layers
    assert (row.chosen, row.engine_layer, row.tactic, row.time_c_ms) == (True, "gemm", SPARSE, 2.5)


@pytest.mark.parametrize(
    ("evidence", "chosen", "reason"),
    [
        (Evidence(sparse_flag=False), False, Reason.FLAG_OFF),
        (Evidence(compute_capability="7.5"), False, Reason.GPU_BEFORE_AMPERE),
        (Evidence(compute_capability="12.0", has_sparse_kernels=False), False, Reason.FP32_GRAPH),
        (Evidence(has_sparse_kernels=False, layers=(kernel("large", SPARSE),)), True, None),
        (Evidence(), None, Reason.OPAQUE),
        (Evidence(log=SparsityLog(1, 0)), False, Reason.ELIGIBLE_NOT_CHOSEN),
        (Evidence(log=SparsityLog(1, 0), memory_skips=3), False, Reason.OUT_OF_MEMORY_TACTIC),
        (Evidence(log=SparsityLog(2, 1)), None, Reason.OPAQUE),
        (Evidence(log=SparsityLog(1, 0), layers=(kernel("large", SPARSE),)), True, None),
        (Evidence(layers=(kernel("large", DENSE, has_sparse_weights=True),)), False, Reason.ELIGIBLE_NOT_CHOSEN),
        (Evidence(log=SparsityLog(1, 1, ("large + r",), ("large + r",))), True, None),
        (Evidence(log=SparsityLog(2, 1, ("large", "b"), ("b",))), False, Reason.ELIGIBLE_NOT_CHOSEN),
        (Evidence(log=SparsityLog(2, 1, ("myl0_1", "b"), ("b",))), None, Reason.OPAQUE),
        (Evidence(log=SparsityLog(2, 1, None, ("b",))), None, Reason.OPAQUE),
    ],
)
def test_chosen_and_why_not(evidence: Evidence, chosen: bool | None, reason: Reason | None) -> None:
    (row,) = explain(audit(LARGE), evidence).layers
    assert (row.chosen, row.reason) == (chosen, reason)


def test_noise_hides_a_layers_gain() -> None:
    sparse, dense = (Evidence(layers=(kernel("large", SPARSE),), times={"large": time}) for time in (0.98, 1.0))
    assert explain(audit(LARGE), sparse, dense).layers[0].reason is None
    assert explain(audit(LARGE), sparse, dense, noise=0.5).layers[0].reason is None  # the whole engine's noise
    noisy = replace(dense, noise={"large": 0.03, "other": 0.5})
    (layer,) = explain(audit(LARGE), sparse, noisy).layers
    assert (layer.reason, layer.noise) == (Reason.CHOSEN_NO_GAIN, pytest.approx(0.03))


def test_the_noise_of_a_layer_that_several_engine_layers_run() -> None:
    parts = (kernel("gemm", DENSE, "large"), kernel("bias", "__myl", "large"))
    evidence = Evidence(layers=parts, times={"gemm": 3.0, "bias": 1.0}, noise={"gemm": 0.02, "bias": 0.1})
    assert evidence.noise_of("large") == pytest.approx((3 * 0.02 + 1 * 0.1) / 4)
    assert evidence.noise_of("elsewhere") is None


def test_a_real_dialect_by_names() -> None:
    log = read_sparsity((LOGS / "trt8.txt").read_text().split("\n"))
    names = ("layer1.0.conv1", "layer2.0.conv1", "layer2.0.downsample.0", "fc", "elsewhere")
    found = rows(explain(audit(*map(audited, names)), Evidence(log=log)))
    assert [found[name].chosen for name in names] == [False, True, False, True, None]


GAIN, NOISE, LOSS = Ratio(1.12, 1.10, 1.14), Ratio(1.01, 0.99, 1.03), Ratio(0.93, 0.91, 0.95)
USED = Evidence(layers=(kernel("large", SPARSE), kernel("wasted", SPARSE), kernel("small", DENSE)))
UNUSED = Evidence(log=SparsityLog(3, 0))
TRIO = audit(LARGE, WASTED, SMALL)
MOSTLY_OTHER = Evidence(times={"large": 1.0, "wasted": 1.0, "small": 1.0, "pool": 97.0})


@pytest.mark.parametrize(
    ("network", "sparse", "dense", "speedup", "expected"),
    [
        (
            TRIO,
            USED,
            None,
            GAIN,
            "sparse is 1.12× (1.10–1.14) faster at batch 32; 2 of 3 eligible layers use sparse kernels",
        ),
        (TRIO, USED, None, replace(GAIN, rebuilds=1), "sparse is 1.12× (1.10–1.14, of this build) faster at batch 32;"),
        (TRIO, USED, None, replace(GAIN, rebuilds=3), "sparse is 1.12× (1.10–1.14) faster at batch 32;"),
        (
            TRIO,
            Evidence(),
            None,
            GAIN,
            "faster at batch 32; how many of 3 eligible layers use sparse kernels is unknown",
        ),
        (
            TRIO,
            USED,
            None,
            NOISE,
            "no gain here, because the difference lies within the noise: 1.01× (0.99–1.03) at batch 32;",
        ),
        (TRIO, USED, None, Ratio(1.02, 1.01, 1.03), "no gain here, because the difference lies within the noise"),
        (
            TRIO,
            USED,
            MOSTLY_OTHER,
            NOISE,
            "no gain here, because eligible layers take only 3 % of the time, which allows 1.02×",
        ),
        (TRIO, USED, None, LOSS, "no gain here, because sparse is slower: 0.93× (0.91–0.95) at batch 32; 2 of 3"),
        (
            TRIO,
            UNUSED,
            None,
            None,
            "none of 3 eligible layers uses a sparse kernel. ELIGIBLE_NOT_CHOSEN (2): The builder",
        ),
        (TRIO, UNUSED, None, GAIN, "Measured without sparse kernels: 1.12× (1.10–1.14) at batch 32."),
        (
            audit(STEM),
            USED,
            None,
            NOISE,
            "no gain here, because no layer is eligible. CHANNELS_NOT_MULTIPLE (1): The input",
        ),
        (
            TRIO,
            Evidence(sparse_flag=False),
            None,
            None,
            "no gain here, because the engine was built without sparse kernels;",
        ),
        (TRIO, USED, None, None, "not measured; 2 of 3 eligible layers use sparse kernels"),
        (audit(), Evidence(), None, None, "no gain here, because no layer is eligible."),
    ],
)
def test_verdicts(
    network: AuditResult, sparse: Evidence, dense: Evidence | None, speedup: Ratio | None, expected: str
) -> None:
    assert expected in explain(network, sparse, dense, speedup, noise=0.02, batch=32).verdict


def test_json_is_a_profile_too(tmp_path: Path) -> None:
    whole = explain(NETWORK, C, B, GAIN, 0.01, 32)
    write_json(tmp_path / "explain.json", whole.to_json())
    content = json.loads((tmp_path / "explain.json").read_text())
    assert content["verdict"] == whole.verdict
    assert content["speedup"] == {"ratio": 1.12, "low": 1.10, "high": 1.14, "rebuilds": None}
    assert content["builder"]["chosen"] == 2
    assert content["layers"][0]["reason"] == "CHANNELS_NOT_MULTIPLE"
    told = {name: gain.gain for name, gain in read_profile(tmp_path / "explain.json").items()}
    assert told == {layer.name: layer.gain for layer in whole.layers if layer.gain and layer.name not in ("conv1",)}
