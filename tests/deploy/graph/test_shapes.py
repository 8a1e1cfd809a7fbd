"""Shapes from the command line."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.graph import parse_shapes, resolve_shapes
from sparsegpt_cli.messages import with_flags
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
    flag = with_flags(caught.value.hint).removesuffix(".").rpartition(" ")[2]
    assert resolve_shapes(inputs, parse_shapes(flag))["x"][1] == (8, 3, 224, 224)
