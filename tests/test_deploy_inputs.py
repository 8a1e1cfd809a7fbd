"""Texts that deploy reads: shapes and build logs."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.build_log import SparsityLog, count_memory_skips, read_sparsity
from deploy.shapes import parse_shapes, resolve_shapes
from sparsegpt_core.errors import InputError

DYNAMIC = {"input": (None, 3, 8, 8)}


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("1/8/32", (1, 8, 32)),
        (" 4/4/4 ", (4, 4, 4)),
        ("x:1x3/2x3/4x3", {"x": ((1, 3), (2, 3), (4, 3))}),
        ("input:0:1/2/3, y:1/1/1", {"input:0": ((1,), (2,), (3,)), "y": ((1,), (1,), (1,))}),
    ],
)
def test_parse_shapes(text: str, shapes: object) -> None:
    assert parse_shapes(text) == shapes


@pytest.mark.parametrize(
    "text",
    [
        *("", "8", "1/8", "8/1/32", "0/1/2", "-1/1/2", "a/b/c", "١/٢/٣", "1/2/99999999999999999999"),
        *("x:", ":1/2/3", "1x3/2x3/4x3", "x:1x3/2x3/4", "x:1x3/2x3/4x2", "x:1/2/3,x:1/2/3"),
    ],
)
def test_shapes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_shapes(text)
    assert "1/8/32" in caught.value.hint


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        parse_shapes(text)


def test_resolve_shapes() -> None:
    assert resolve_shapes(DYNAMIC, None)["input"] == ((1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 8, 8))
    assert resolve_shapes(DYNAMIC, (2, 2, 4))["input"] == ((2, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))
    assert resolve_shapes({"x": (4, 3)}, None) == {"x": ((4, 3),) * 3}
    named = {"x": ((1, 3, 4), (1, 3, 8), (2, 3, 8))}
    assert resolve_shapes({"x": (None, 3, None)}, named) == named


@pytest.mark.parametrize(
    ("inputs", "shapes", "message"),
    [
        ({"x": (None, 3, None, None)}, None, r"x.*\(\?, 3, \?, \?\).*besides the batch"),
        ({"x": (4, 3)}, (1, 2, 3), "batch is fixed"),
        (DYNAMIC, {"y": ((1,),) * 3}, "no input 'y'"),
        (DYNAMIC, {"input": ((1, 3, 8),) * 3}, "does not fit"),
        (DYNAMIC, {"input": ((1, 1, 8, 8),) * 3}, "does not fit"),
    ],
)
def test_shapes_that_do_not_fit(inputs: dict, shapes: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        resolve_shapes(inputs, shapes)
    assert caught.value.hint


def test_the_hint_for_open_dimensions_can_be_pasted() -> None:
    inputs = {"x": (None, 3, None, None)}
    with pytest.raises(InputError) as caught:
        resolve_shapes(inputs, None)
    flag = caught.value.hint.rpartition(" ")[2]
    assert resolve_shapes(inputs, parse_shapes(flag))["x"][1] == (8, 3, 224, 224)


TRT8 = "[I] [TRT] (Sparsity) Layers eligible for sparse math: "
TRT8_CHOSE = "[I] [TRT] (Sparsity) TRT inference plan picked sparse implementation for layers: "


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], (None, None)),
        (["[V] Tactic: 0x1 Time: 0.1", "sparse tactics are fine"], (None, None)),
        ([TRT8 + "Conv_0 + Relu_1, Conv_2", TRT8_CHOSE + "Conv_2"], (2, 1)),
        ([TRT8 + "Conv_0", TRT8_CHOSE], (1, 0)),
        ([TRT8.rstrip(), TRT8_CHOSE.rstrip()], (0, 0)),
        (["(Sparsity) Found 12 layer(s) eligible to use sparse tactics: a, b"], (12, None)),
        (
            [
                "[V] (Sparsity) Found 3 layer(s) eligible to use sparse tactics",
                "[V] (Sparsity) Chose 0 layer(s) using sparse tactics",
                "[V] (Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b",
                "something else",
                "[V] (Sparsity) Chose 1 layer(s) using sparse tactics: b",
            ],
            (2, 1),
        ),
        (["(Sparsity) Chose 1 layer(s) using sparse tactics"], (None, 1)),
        (["(Sparsity) Found ٣ layer(s) eligible to use sparse tactics"], (None, None)),
        (
            ["(Sparsity) Found three layer(s) eligible", "(Sparsity)", "(Sparsity) Chose -1 layer(s) using"],
            (None, None),
        ),
    ],
)
def test_read_sparsity(lines: list[str], expected: tuple) -> None:
    assert read_sparsity(lines) == SparsityLog(*expected)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1), st.text())
def test_the_last_pair_counts(pairs: list[tuple[int, int]], noise: str) -> None:
    lines = []
    for found, chose in pairs:
        lines += [f"(Sparsity) Found {found} layer(s) eligible to use sparse tactics", noise]
        lines += [f"(Sparsity) Chose {chose} layer(s) using sparse tactics: names"]
    assert read_sparsity(lines) == SparsityLog(*pairs[-1])


def test_memory_skips() -> None:
    lines = [
        "Skipping tactic 0x0000000000000000 due to insufficient memory on requested size of 4296017664",
        "Tactic Device request: 4097MB Available: 3892MB. Device memory is insufficient to use tactic.",
        "Total memory 12 MiB",
    ]
    assert count_memory_skips(lines) == 2
