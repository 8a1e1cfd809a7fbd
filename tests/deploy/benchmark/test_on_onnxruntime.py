"""ONNX Runtime sessions and the comparison of dense with sparse on them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier

from deploy.benchmark import BenchmarkResult, Limits, benchmark_onnx
from deploy.sessions import OnnxSession
from sparsegpt_core.errors import DataError, InputError, MissingDependencyError, ModelError
from tests.support.engines import SHORT


def linear(path: Path, weight: np.ndarray, bias: np.ndarray, batch: int | str = "N", dtype=np.float32) -> Path:
    """A linear classifier of 8 x 8 images."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
        ],
        "linear",
        [helper.make_tensor_value_info("image", kind, [batch, 1, 8, 8])],
        [helper.make_tensor_value_info("logits", kind, [batch, len(weight)])],
        [numpy_helper.from_array(w.astype(dtype), n) for w, n in ((weight, "weight"), (bias, "bias"))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    fitted = RidgeClassifier().fit(images[:1200], labels[:1200])
    return images[1200:].reshape(-1, 1, 8, 8).astype(np.float32), labels[1200:], fitted.coef_, fitted.intercept_


@pytest.fixture
def models(tmp_path: Path, digits: tuple) -> tuple[Path, Path]:
    _, _, weight, bias = digits
    groups = np.abs(weight).reshape(-1, 4)
    kept = groups >= np.sort(groups, axis=1)[:, 2:3]
    sparse = weight * kept.reshape(weight.shape)
    return linear(tmp_path / "dense.onnx", weight, bias), linear(tmp_path / "sparse.onnx", sparse, bias)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("batch", ["N", 1, 4, 16])
def test_session_agrees_with_the_reference_evaluator(tmp_path: Path, batch: int | str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    path = linear(tmp_path / "m.onnx", rng.normal(size=(3, 64)), rng.normal(size=3), batch, dtype)
    images = rng.normal(size=(10, 1, 8, 8))
    session = OnnxSession(path, threads=1)
    logits = session.run(images)
    (expected,) = ReferenceEvaluator(str(path)).run(None, {"image": images.astype(dtype)})
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=0.05 if dtype == np.float16 else 1e-5)
    assert session.name == "m.onnx"
    assert session.input_shapes == {"image": (None if batch == "N" else batch, 1, 8, 8)}


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 28, 28), (2, 64), (0, 1, 8, 8), (8, 8)])
def test_wrong_image_shapes(models: tuple[Path, Path], shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as caught:
        OnnxSession(models[0]).run(np.zeros(shape, np.float32))
    assert "(N, 1, 8, 8)" in str(caught.value)
    assert str(shape) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_classifiers_are_refused(tmp_path: Path, models: tuple[Path, Path], capfd) -> None:
    with pytest.raises(InputError, match="no file at"):
        OnnxSession(tmp_path / "none.onnx")
    for content in (b"", b"garbage" * 9, models[0].read_bytes()[:300]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises((InputError, ModelError), match=r"bad\.onnx"):
            OnnxSession(tmp_path / "bad.onnx")
    doubles = linear(tmp_path / "double.onnx", np.ones((3, 64)), np.ones(3), dtype=np.float64)
    with pytest.raises(ModelError, match="FP32, FP16"):
        OnnxSession(doubles)
    assert capfd.readouterr().out == ""


def test_a_missing_provider_is_an_error(models: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="NoSuchProvider"):
        OnnxSession(models[0], provider="NoSuchProvider")


def test_onnxruntime_may_be_missing(models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError) as caught:
        OnnxSession(models[0])
    assert caught.value.hint == "pip install onnxruntime"


def failures(result: BenchmarkResult, drop: float) -> list[str]:
    return Limits({"top1": drop}).quality_failures(result.compared.to_json(), result.judged)


def test_benchmark(models: tuple[Path, Path], digits: tuple) -> None:
    images, labels, weight, bias = digits
    batches = [(images[i : i + 200], labels[i : i + 200]) for i in range(0, len(images), 200)]
    stages = []
    result = benchmark_onnx(
        *models, batches, timing=replace(SHORT, rounds=4), threads=1, progress=lambda *step: stages.append(step)
    )
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    expected = 100 * np.mean((images.reshape(-1, 64) @ weight.T + bias).argmax(1) == labels)
    assert found["runtime"].startswith("onnxruntime ")
    assert found["runtime"].endswith(" CPU")
    assert found["accuracy"]["dense"]["top1"] == pytest.approx(expected)
    assert found["accuracy"]["difference"] == found["accuracy"]["sparse"]["difference"]
    assert found["accuracy"]["difference"]["value"] < 0
    assert set(found["latency"]) == {"dense", "sparse"}
    assert set(found["latency"]["sparse"]) >= {"p50_ms", "p95_ms", "p99_ms", "samples"}
    assert found["speedup"]["A_to_C"] is None
    assert found["speedup"]["B_to_C"] is None
    assert found["speedup"]["dense_to_sparse"]["low"] <= found["speedup"]["dense_to_sparse"]["high"]
    assert found["speedup"]["dense_to_sparse"]["rebuilds"] is None  # nothing is built
    assert found["noise"] >= 0
    assert found["verdict"].startswith("Top-1 accuracy")
    assert "nothing about a GPU" in found["verdict"]
    assert ("accuracy", 3, 3) in stages
    assert ("latency", 4, 4) in stages
    drop = -found["accuracy"]["difference"]["value"]
    assert failures(result, drop + 0.01) == []
    assert "fell by" in failures(result, drop - 0.01)[0]
    (failure,) = Limits(min_speedup=1.0).speedup_failures(result.speedup["A_to_C"], result.runtime)
    assert "cannot be judged here" in failure


def test_benchmark_without_labels(models: tuple[Path, Path], digits: tuple) -> None:
    result = benchmark_onnx(*models, iter([(digits[0][:3], None)]), latency_batches=[8], timing=SHORT)
    found = result.to_json()
    assert found["accuracy"]["difference"] is None
    assert found["accuracy"]["sparse"]["kl"] > 0
    assert found["latency_batch"] == 8
    assert "unknown without labels" in found["verdict"]
    assert "cannot be judged" in failures(result, 1.0)[0]


def test_identical_models_do_not_differ(models: tuple[Path, Path], digits: tuple) -> None:
    images, labels = digits[:2]
    result = benchmark_onnx(models[0], models[0], [(images, labels)], timing=SHORT)
    assert "no statistically significant difference" in result.verdict
    assert failures(result, 0) == []


def test_a_fixed_batch_is_what_latency_is_measured_with(tmp_path: Path, digits: tuple) -> None:
    images, labels, weight, bias = digits
    fixed = linear(tmp_path / "fixed.onnx", weight, bias, batch=4)
    assert benchmark_onnx(fixed, fixed, [(images[:6], labels[:6])], timing=SHORT).timed[0].latency.regime.batch == 4
    with pytest.raises(InputError, match="batches of 1"):
        benchmark_onnx(fixed, fixed, [(images, labels)], latency_batches=[1])
    with pytest.raises(DataError, match="no images"):
        benchmark_onnx(fixed, fixed, [])
