"""Build logs of each dialect, from trtexec."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.builder import SparsityLog, count_memory_skips, read_sparsity
from tests.support.paths import ROOT

LOGS = ROOT / "tests" / "data" / "build_logs"
FOUND, CHOSE = (
    "(Sparsity) Found {} layer(s) eligible to use sparse tactics",
    "(Sparsity) Chose {} layer(s) using sparse tactics",
)
ELIGIBLE = "(Sparsity) Layers eligible for sparse math: "
PICKED = "(Sparsity) TRT inference plan picked sparse implementation for layers: "


def read(name: str) -> SparsityLog:
    return read_sparsity((LOGS / f"{name}.txt").read_text().split("\n"))


def all_of(log: SparsityLog) -> tuple[Any, ...]:
    return log.eligible, log.chosen, log.eligible_names, log.chosen_names


def test_layer_names_in_logs_of_8() -> None:
    log = read("trt8")
    assert (log.eligible, log.chosen) == (6, 2)
    assert log.chosen_names == ("layer2.0.conv1 + Relu_8", "fc")
    assert log.eligible_names is not None
    assert log.eligible_names[3:5] == ("layer2.0.conv2 || layer2.0.downsample.0", "PWN(PWN(Sigmoid_9), Mul_10)")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trt8_none_picked", (1, 0, ("Conv_0",), ())),
        ("trt10_counts", (18, 11, None, None)),
        ("trt10_cut_off", (3, None, None, None)),
        ("silent", (None, None, None, None)),
    ],
)
def test_logs_without_names(name: str, expected: tuple[Any, ...]) -> None:
    assert all_of(read(name)) == expected


def test_layer_names_in_logs_of_10() -> None:
    log = read("trt10_names")
    fused = ("layer3.0.conv1 + Relu_12", "layer3.0.conv2 + Add_14 + Relu_15")
    assert all_of(log) == (3, 2, (*fused, "fc_myl0_3"), fused)


@pytest.mark.parametrize(("name", "count"), [("trt8", 1), ("trt10_counts", 1), ("silent", 0)])
def test_memory_skips_of_logs(name: str, count: int) -> None:
    assert count_memory_skips((LOGS / f"{name}.txt").read_text().split("\n")) == count


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        (["Skipping tactic 1 due to insufficient memory"] * 2, 2),
        (
            ["Skipping tactic 0x1 due to exception autotuning: User allocator error allocating 4296017664-byte buffer"],
            1,
        ),
        (["Some tactics do not have sufficient workspace memory to run. Increasing workspace size ..."], 1),
        (
            ["[Autotuner]: Skipping tactic: ran out of scratch memory while compiling the auto-tuner subgraph."],
            1,
        ),  # TensorRT-RTX 1.7
        (["Device memory is insufficient to use tactic.", "Timing cache hit", "Skipping tactic 1: out of memory"], 2),
        (["Skipping tactic 0x1 due to unsupported format", "Total memory 12 MiB"], 0),
    ],
)
def test_memory_skips(lines: list[str], count: int) -> None:
    assert count_memory_skips(lines) == count


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([FOUND.format(2) + ": a,b, c", CHOSE.format(1) + ": a,b"], (2, 1, ("a,b", "c"), ("a,b",))),
        ([FOUND.format(1) + ": a, b", CHOSE.format(0)], (1, 0, None, ())),
        ([ELIGIBLE + "a, (Unnamed Layer* 1), b,", PICKED], (3, 0, ("a", "(Unnamed Layer* 1)", "b"), ())),
        ([PICKED + "a"], (None, 1, None, ("a",))),
        ([FOUND.format(3), CHOSE.format(1), FOUND.format(9)], (3, 1, None, None)),
        ([FOUND.format("٣"), CHOSE.format("１"), FOUND.format("-1"), CHOSE.format("many"), "(Sparsity)"], (None,) * 4),
    ],
)
def test_names_with_commas_and_nonsense(lines: list[str], expected: tuple[Any, ...]) -> None:
    assert all_of(read_sparsity(lines)) == expected


def is_name(text: str) -> bool:
    return bool(text.strip(", ")) and ", " not in text and not text.endswith(",")


names = st.lists(st.text("abc_019./ +|,", min_size=1).map(str.strip).filter(is_name))


@settings(deadline=None)
@given(names, names)
def test_names_survive_in_both_dialects(eligible: list[str], chosen: list[str]) -> None:
    expected = (len(eligible), len(chosen), tuple(eligible), tuple(chosen))
    old = [ELIGIBLE + ", ".join(eligible), PICKED + ", ".join(chosen)]
    new = [f"{FOUND.format(len(eligible))}: {', '.join(eligible)}", f"{CHOSE.format(len(chosen))}: {', '.join(chosen)}"]
    assert all_of(read_sparsity(old)) == all_of(read_sparsity(new)) == expected


@settings(deadline=None)
@given(st.lists(st.text() | st.sampled_from([FOUND, CHOSE, ELIGIBLE, PICKED])))
def test_nonsense_is_unknown_not_an_error(lines: list[str]) -> None:
    log = read_sparsity(lines)
    assert log.eligible is None or log.eligible >= 0
    assert count_memory_skips(lines) >= 0
