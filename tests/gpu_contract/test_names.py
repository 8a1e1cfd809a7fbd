"""The list of what deploy uses of TensorRT is complete, and TensorRT-RTX has all of it."""

from __future__ import annotations

import ast

import pytest

from tests.support.paths import ROOT
from tests.support.tensorrt_names import RECEIVERS, Use, find_uses, missing_names, name_of, refused_calls

ELSEWHERE = {"settings.tactic_sources", "infer.infer_shapes"}
"""Expressions with a name of TensorRT's that are something else."""


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="names are compared with TensorRT-RTX's")


def test_rtx_has_every_name_and_takes_every_call(rtx):
    uses = find_uses()
    assert missing_names(rtx, [use.name for use in uses]) == ["BuilderFlag.FP16"]  # it reads precisions from the graph
    assert refused_calls(rtx, uses) == {}


def test_no_use_of_the_bindings_is_overlooked(rtx):
    """A name with an underscore that TensorRT has is used on nothing but the expressions of the table."""
    owners = [rtx, *(each for each in vars(rtx).values() if isinstance(each, type))]
    names = {name for owner in owners for name in dir(owner) if "_" in name.strip("_")}
    overlooked = {
        f"{path.relative_to(ROOT)}: {ast.unparse(node)}"
        for path in sorted((ROOT / "deploy").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in names - {"__init__", "__name__", "__version__"}
        and name_of(node, RECEIVERS.get(str(path.relative_to(ROOT)), {})) is None
        and ast.unparse(node) not in ELSEWHERE
    }
    assert overlooked == set()


def test_every_receiver_is_used():
    for file, receivers in RECEIVERS.items():
        expressions = {ast.unparse(node) for node in ast.walk(ast.parse((ROOT / file).read_text()))}
        assert set(receivers) <= expressions, file


@pytest.mark.parametrize(
    ("use", "refused"),
    [
        (Use("IBuilderConfig.set_timing_cache", False, 1, ("ignore_mismatch",)), False),
        (Use("IBuilderConfig.set_timing_cache", False, 2), False),
        (Use("IBuilderConfig.set_timing_cache", False, 1), True),
        (Use("IBuilderConfig.set_timing_cache", False, 1, ("ignore_mismatches",)), True),
        (Use("IBuilderConfig.set_timing_cache", False, 3), True),
        (Use("Runtime", False, 1), False),
        (Use("Runtime", False, 0), True),
        (Use("ICudaEngine.create_execution_context"), False),
        (Use("ICudaEngine.create_execution_context", False, 0), False),  # an overload with a default
    ],
)
def test_the_check_of_arguments(rtx, use, refused):
    assert bool(refused_calls(rtx, [use])) == refused


def test_the_check_of_names(rtx):
    assert missing_names(rtx, ["Runtime", "Runtime.deserialise", "PreviewFeature.NONE_SUCH"]) == [
        "PreviewFeature.NONE_SUCH",
        "Runtime.deserialise",
    ]
