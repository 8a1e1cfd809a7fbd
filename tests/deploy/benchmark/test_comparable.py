"""Files that cannot be compared as dense and sparse are refused before anything is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy.benchmark import benchmark_engines
from deploy.benchmark.comparable import check_pair
from deploy.graph import OnnxFile
from export.audit import write_metadata
from sparsegpt_core.errors import InputError
from tests.support.engines import batches
from tests.support.fake_arms import Builder, classifier

DENSE, SPARSE = np.ones((4, 64)), np.tile([1, 1, 0, 0], (4, 16))


def refusal(dense: Path, sparse: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        check_pair(OnnxFile(dense), OnnxFile(sparse))
    return caught.value


def record(path: Path, **metadata: object) -> Path:
    model = onnx.load(path)
    write_metadata(model, metadata)
    onnx.save(model, path)
    return path


def test_the_right_order_passes(tmp_path) -> None:
    dense, sparse = classifier(tmp_path / "d.onnx", DENSE), classifier(tmp_path / "s.onnx", SPARSE)
    check_pair(OnnxFile(dense), OnnxFile(sparse))
    check_pair(OnnxFile(sparse), OnnxFile(sparse))  # the noise of a comparison with itself


def test_swapped_files_of_other_tools_are_found_by_their_weights(tmp_path) -> None:
    dense, sparse = classifier(tmp_path / "d.onnx", DENSE), classifier(tmp_path / "s.onnx", SPARSE)
    error = refusal(sparse, dense)
    assert str(error) == f"{sparse} is pruned and {dense} is dense"
    assert error.hint == "Swap the files: the dense file comes first."


def test_swapped_files_without_2_4_are_found_by_their_records(tmp_path) -> None:
    dense = record(classifier(tmp_path / "d.onnx", DENSE), model="simple_cnn")
    sparse = record(classifier(tmp_path / "s.onnx", DENSE), model="simple_cnn", pattern="4:8", pruned=["conv"])
    check_pair(OnnxFile(dense), OnnxFile(sparse))
    assert "is pruned and" in str(refusal(sparse, dense))


def test_other_weights_shapes_and_inputs_are_other_networks(tmp_path) -> None:
    dense, small = classifier(tmp_path / "d.onnx", DENSE), classifier(tmp_path / "s.onnx", SPARSE[:3])
    assert "weighted layer 1 is Gemm 4x64 in the first and Gemm 3x64 in the second" in str(refusal(dense, small))
    model = onnx.load(dense)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.save(model, tmp_path / "wide.onnx")
    assert "inputs are [(1, 8, 8)] and [(2, 8, 8)]" in str(refusal(dense, tmp_path / "wide.onnx"))
    model = onnx.load(dense)
    model.graph.node.pop()
    onnx.save(model, tmp_path / "short.onnx")
    assert "Gemm 4x64 in the first and missing in the second" in str(refusal(dense, tmp_path / "short.onnx"))


def test_another_precision_is_refused_and_the_right_files_are_named(tmp_path) -> None:
    dense = classifier(tmp_path / "dense.onnx", DENSE, dtype=np.float32)
    sparse = classifier(tmp_path / "sparse.fp16.onnx", SPARSE)
    error = refusal(dense, sparse)
    assert "dense.onnx is FP32 and" in str(error)
    assert "Export both files" in error.hint
    half = classifier(tmp_path / "dense.fp16.onnx", DENSE)
    assert refusal(dense, sparse).hint == f"Compare {half} with {sparse}."


def test_no_engine_is_built_from_fp32(gpu, builder: Builder, tmp_path) -> None:
    files = [
        classifier(tmp_path / f"{name}.onnx", weight, dtype=np.float32)
        for name, weight in (("dense", DENSE), ("sparse", SPARSE))
    ]
    with pytest.raises(InputError, match=r"sparse\.onnx is FP32, for which TensorRT has no sparse kernels"):
        benchmark_engines(*files, batches())
    assert builder.asked == []
