"""Limits: what fails, at which end of the interval, and the sentences that say so."""

from __future__ import annotations

from typing import Any

import pytest
from scipy.stats import binomtest

from deploy.benchmark import Limits
from deploy.measure import Ratio

COMPARED: dict[str, Any] = {
    "accuracy": {
        "sparse": {
            "difference": {"value": -0.3, "low": -1.2, "high": 0.6},
            "disagreement": 1.5,
            "samples": 400,
        }
    },
    "metrics": {
        "miou": {
            "higher_is_better": True,
            "versions": {"sparse": {"difference": {"value": -2.0, "low": -3.0, "high": -1.0}}},
        },
        "loss": {
            "higher_is_better": False,
            "versions": {"sparse": {"difference": {"value": 0.1, "low": -0.1, "high": 0.3}}},
        },
    },
}


@pytest.mark.parametrize(
    ("limits", "failures"),
    [
        (Limits({"top1": 0.3, "miou": 2, "loss": 0.1}, 1.5), []),
        (Limits({"top1": 0.2}), ["top-1 accuracy of sparse fell by 0.3 points, 0.2 are allowed"]),
        (Limits({"top1": 1}, on_bound=True), ["top-1 accuracy of sparse fell by up to 1.2 points, 1 are allowed"]),
        (Limits({"miou": 1.9}), ["miou of sparse fell by 2, 1.9 are allowed"]),
        (Limits({"miou": 2}, on_bound=True), ["miou of sparse fell by up to 3, 2 are allowed"]),
        (Limits({"loss": 0.05}), ["loss of sparse rose by 0.1, 0.05 are allowed"]),
        (Limits({"loss": 0.2}, on_bound=True), ["loss of sparse rose by up to 0.3, 0.2 are allowed"]),
        (Limits({"map": 1}), ["the loss of map cannot be judged: the metric's figures are miou, loss"]),
        (Limits(disagreement=1), ["1.5 % of the images change class in sparse, 1 % may"]),
        (Limits(disagreement=2, on_bound=True), ["up to 3.24 % of the images change class in sparse, 2 % may"]),
    ],
)
def test_limits(limits: Limits, failures: list[str]) -> None:
    assert limits.quality_failures(COMPARED, "sparse") == failures
    assert limits.verdict(failures) == {"passed": not failures, "failures": failures}


def test_the_bound_of_a_disagreement_is_clopper_and_pearsons() -> None:
    expected = 100 * binomtest(6, 400).proportion_ci(0.95, "exact").high
    assert Limits(disagreement=expected + 1e-6, on_bound=True).quality_failures(COMPARED, "sparse") == []
    assert Limits(disagreement=expected - 1e-6, on_bound=True).quality_failures(COMPARED, "sparse")


def test_what_was_not_measured_fails() -> None:
    maps = {"accuracy": None, "metrics": None}
    found = Limits({"top1": 1}).quality_failures(maps, "C")
    assert found == ["the loss of top-1 accuracy of C cannot be judged: the outputs are no logits"]
    assert "the outputs are no logits" in Limits(disagreement=1).quality_failures(maps, "C")[0]
    assert "cannot be judged here" in Limits(min_speedup=1).speedup_failures(None, "onnxruntime")[0]


def test_a_speedup_is_judged_at_its_low_end() -> None:
    ratio = Ratio(1.2, 1.05, 1.4, 3)
    assert Limits(min_speedup=1.1).speedup_failures(ratio, "tensorrt") == []
    found = Limits(min_speedup=1.1, on_bound=True).speedup_failures(ratio, "tensorrt")
    assert found == ["the speed-up is at least 1.05, 1.1 is required"]


def test_without_limits_there_is_no_verdict() -> None:
    assert Limits().verdict([]) == {"passed": None, "failures": []}
