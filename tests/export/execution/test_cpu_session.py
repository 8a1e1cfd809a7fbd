"""ONNX Runtime on the CPU, for files with a fixed batch."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from export.execution import CpuSession


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_a_fixed_batch_runs_in_portions(count):
    """Outputs may have several rows for each sample, or none: those are joined as they are."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]> g (float[2, 4] x) => (float[2, 4] y, float[4, 2] rows, float[] largest)
        <int64[2] shape = {4, 2}> { y = Neg (x)  rows = Reshape (x, shape)  largest = ReduceMax <keepdims = 0> (x) }
    """)
    x = np.random.default_rng(0).random((count, 4), np.float32)
    y, rows, largest = CpuSession(model, "negative").run([x])
    assert np.array_equal(y, -x)
    assert np.array_equal(rows, x.reshape(-1, 2))
    assert largest.max() == x.max()
