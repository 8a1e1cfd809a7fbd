"""Metrics of a user and built-in ones: their figures, the intervals of their differences, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import stats

from deploy.measure import Metric, compare_versions, load_metric
from deploy.measure.metric_comparison import MetricsComparison
from sparsegpt_core.errors import DataError, InputError, NumericsError


def squared_error(outputs: Any, labels: Any) -> dict[str, Any]:
    return {"mse": np.square(outputs - labels).reshape(len(outputs), -1).mean(1)}


squared_error.higher_is_better = False


class Mean:
    """The mean of the outputs: its jackknife can be computed by hand."""

    higher_is_better: ClassVar[dict[str, bool]] = {"mean": True}

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def update(self, outputs: Any, labels: Any) -> None:
        assert len(outputs) == len(labels)
        self.seen += list(outputs)

    def compute(self) -> dict[str, float]:
        return {"mean": float(np.mean(self.seen))}


def compare(metric: Any, dense: Any, sparse: Any, labels: Any, batch: int = 7) -> Any:
    comparison = MetricsComparison(Metric(metric, "metric"), ["dense", "sparse"])
    for start in range(0, len(dense), batch):
        part = slice(start, start + batch)
        outputs = {"dense": {"y": dense[part]}, "sparse": {"y": sparse[part]}}
        comparison.update(outputs, None if labels is None else labels[part], len(dense[part]))
    return comparison.report()


@pytest.fixture
def values() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(60, 2))
    return dense, dense + rng.normal(0.1, 0.2, size=dense.shape)


def test_values_of_images_give_a_paired_interval(values) -> None:
    dense, sparse = values
    labels = np.zeros_like(dense)
    figure = compare(squared_error, dense, sparse, labels)["mse"]
    each = np.square(sparse).mean(1) - np.square(dense).mean(1)
    expected = stats.ttest_1samp(each, 0).confidence_interval()
    found = figure.differences["sparse"]
    assert figure.values["dense"] == pytest.approx(np.square(dense).mean())
    assert (found.value, found.low, found.high) == pytest.approx((each.mean(), expected.low, expected.high))
    assert not figure.higher_is_better
    assert figure.to_json()["versions"].keys() == {"dense", "sparse"}
    assert "difference" not in figure.to_json()["versions"]["dense"]


@pytest.mark.parametrize("metric", [Mean, Mean()])
def test_an_accumulator_gets_a_jackknife_that_no_batch_size_changes(metric: Any, values) -> None:
    dense, sparse = values[0][:, 0], values[1][:, 0]
    found = [compare(metric, dense, sparse, dense, batch)["mean"].differences["sparse"] for batch in (1, 7, 60)]
    assert found[0].value == pytest.approx((sparse - dense).mean())
    assert vars(found[0]) == pytest.approx(vars(found[1]))
    assert vars(found[0]) == pytest.approx(vars(found[2]))
    groups = np.concatenate(_permutations(6))
    without = [(sparse - dense)[groups != group].mean() for group in range(10)]
    error = np.sqrt(0.9 * np.square(without - np.mean(without)).sum())
    assert found[0].high - found[0].value == pytest.approx(stats.t.ppf(0.975, 9) * error)


def _permutations(count: int) -> list[np.ndarray]:
    random = np.random.RandomState(0)
    return [random.permutation(10) for _ in range(count)]


def test_the_jackknife_covers_the_truth() -> None:
    rng, hits, runs = np.random.default_rng(1), 0, 200
    for _ in range(runs):
        differences = rng.normal(0.3, 1, 50)
        interval = compare(Mean, np.zeros(50), differences, np.zeros(50), 50)["mean"].differences["sparse"]
        hits += interval.low <= 0.3 <= interval.high
    assert 0.9 <= hits / runs <= 0.99


def test_few_images_have_no_interval() -> None:
    one, nine = np.ones((1, 2)), np.ones(9)
    assert compare(squared_error, one, one, one)["mse"].differences["sparse"] is None
    assert compare(Mean, nine, nine, nine)["mean"].differences["sparse"] is None


def declared(function: Any, higher_is_better: Any = True) -> Any:
    function.higher_is_better = higher_is_better
    return function


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (3, "metric is no metric"),
        (declared(type("Half", (), {"update": print})), "metric is no metric"),
        (lambda outputs, labels: outputs, "does not say whether higher is better"),
        (declared(lambda outputs, labels: {"a": outputs}, {"b": True}), "whether a higher a is better"),
        (declared(lambda outputs, labels: 1 / 0), "failed in its call: ZeroDivisionError: division by zero"),
        (declared(lambda outputs, labels: {"a": 3.0}), r"gives a of shape \(\) for 4 images"),
        (declared(lambda outputs, labels: {"a": "text"}), "failed in reading a: ValueError"),
        (declared(lambda outputs, labels: {}), "gives no named figures"),
        (declared(lambda outputs, labels: {"a": outputs * np.nan}), "gives a as NaN or infinity for 'dense'"),
    ],
)
def test_a_metric_that_cannot_be_used_is_named(metric: Any, message: str) -> None:
    with pytest.raises((InputError, NumericsError), match=message) as caught:
        compare(metric, np.ones(4), np.ones(4), np.ones(4))
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_miou_against_a_loop_over_classes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (12, 6, 7))
    labels[:2] = 255  # void
    scores = rng.normal(size=(12, 6, 6, 7)) + 2 * (np.arange(6)[:, None, None] == labels[:, None])
    metric = load_metric("miou").accumulator()
    for start in (0, 5):
        part = slice(start, start + 5 if start == 0 else None)
        metric.update(scores[part], labels[part])
    found, kept = scores.argmax(1), labels != 255
    ious = []
    for index in range(6):
        true, predicted = (labels == index) & kept, (found == index) & kept
        ious.append((true & predicted).sum() / (true | predicted).sum())
    assert metric.compute()["miou"] == pytest.approx(100 * np.mean(ious))


@pytest.mark.parametrize("labels", [None, np.zeros((2, 3, 3), int), np.zeros(2, int)])
@pytest.mark.parametrize("name", ["miou", "psnr"])
def test_labels_that_do_not_fit_a_built_in_metric(name: str, labels: Any) -> None:
    outputs = np.zeros((2, 4, 8, 8))
    with pytest.raises(DataError, match=f"{name} has (no labels|labels of shape)") as caught:
        compare_versions({"dense": lambda x: {"y": x}}, [(outputs, labels)], load_metric(name))
    assert "Give labels of shape (2," in caught.value.hint


def test_psnr_of_bytes() -> None:
    labels = np.full((2, 3, 4, 4), 51, np.uint8)  # 0.2
    report = compare_versions(
        {"dense": lambda x: {"y": x}, "sparse": lambda x: {"y": x + 0.01}},
        [(np.full((2, 3, 4, 4), 0.3), labels)],
        load_metric("psnr"),
    )
    assert report.outputs is not None
    assert report.metrics is not None
    assert report.metrics["psnr"].values == pytest.approx({"dense": 20.0, "sparse": -20 * np.log10(0.11)})


def test_several_outputs_come_as_a_dict() -> None:
    metric = declared(lambda outputs, labels: outputs["map"].mean((1, 2)) - outputs["score"])
    run = lambda x: {"map": x, "score": x[:, 0, 0]}  # noqa: E731
    report = compare_versions({"dense": run}, [(np.ones((3, 2, 2)), None)], Metric(metric, "mine:gap"))
    assert report.metrics is not None
    assert report.metrics["gap"].values == {"dense": 0.0}


def test_metrics_are_found_by_name_or_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def loss(outputs, labels):\n    return abs(outputs - labels)\nloss.higher_is_better = False\n")
    assert load_metric(f"{path}:loss").higher_is_better("loss") is False
    with pytest.raises(InputError, match="unknown metric 'mAP'"):
        load_metric("mAP")
    with pytest.raises(InputError, match="has no los"):
        load_metric(f"{path}:los")
