"""Shows the builder's choices for single layers: ``python -m benchmarks.gpu.questions OUT``. Needs no torch.

Each question is a stack of equal convolutions, in a dense and a 2:4 file. They are large enough to gain from sparse
kernels.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.gpu.engines import measure
from benchmarks.gpu.machine import end_with_errors, errors_in_one_line, is_measured, require_engines
from sparsegpt_core.files import write_json

CHANNELS, SIDE, BATCH, LAYERS = 512, 28, 32, 4


@dataclass(frozen=True)
class Question:
    """A stack of 3×3 convolutions, and the expected answer."""

    text: str
    expected: str
    precision: str = "fp16"
    axis: str = "channels"
    groups: int = 1
    quantised_output: bool = True


QUESTIONS = {
    "right-axis": Question("2:4 along the input channels, FP16", "eligible and chosen"),
    "wrong-axis": Question("2:4 along the flattened (C, R, S), FP16", "not eligible", axis="flattened"),
    "grouped": Question("2:4 along the input channels, 8 groups, FP16", "not eligible", groups=8),
    "int8": Question("Q/DQ, outputs quantised", "eligible and chosen", precision="int8"),
    "int8-float-output": Question(
        "Q/DQ, outputs in floating point", "eligible, perhaps not chosen", precision="int8", quantised_output=False
    ),
}


def prune(weight: npt.NDArray[np.float32], axis: str) -> npt.NDArray[np.float32]:
    """Zero the two smallest of every four weights of (K, C, R, S), along C or along the flattened (C, R, S)."""
    moved = weight.transpose(0, 2, 3, 1) if axis == "channels" else weight
    groups = moved.reshape(-1, 4).copy()
    np.put_along_axis(groups, np.abs(groups).argsort(axis=1)[:, :2], 0, axis=1)
    pruned = groups.reshape(moved.shape)
    return np.ascontiguousarray(pruned.transpose(0, 3, 1, 2) if axis == "channels" else pruned)


def write_graph(question: Question, path: Path, sparse: bool) -> None:
    """Write a question's ONNX file."""
    chance = np.random.default_rng(0)
    nodes: List[onnx.NodeProto] = []
    constants: List[onnx.TensorProto] = []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def quantised(name: str, source: str, scale: Any) -> str:
        scales = [constant(f"{name}.scale", scale), constant(f"{name}.zero", np.zeros(np.shape(scale), np.int8))]
        axis: Dict[str, Any] = {"axis": 0} if np.ndim(scale) else {}
        nodes.append(helper.make_node("QuantizeLinear", [source, *scales], [f"{name}.q"], f"{name}.quantize", **axis))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}.q", *scales], [f"{name}.dq"], f"{name}.dequantize", **axis)
        )
        return f"{name}.dq"

    value = "images"
    half = question.precision == "fp16"
    shape = (CHANNELS, CHANNELS // question.groups, 3, 3)
    for number in range(LAYERS):
        weight = (chance.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32)
        weight = prune(weight, question.axis) if sparse else weight
        name = f"conv{number}"
        if half:
            inputs = [value, constant(f"{name}.weight", weight.astype(np.float16))]
        else:
            scales = np.abs(weight).max(axis=(1, 2, 3)) / np.float32(127)
            source = value
            if number == 0 or question.quantised_output:
                source = quantised(f"{name}.input", value, np.float32(4 / 127))
            inputs = [source, quantised(f"{name}.weight", constant(f"{name}.weight", weight), scales)]
        nodes.append(helper.make_node("Conv", inputs, [name], name, group=question.groups, pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [name], [f"relu{number}"], f"relu{number}"))
        value = f"relu{number}"
        if not half and not question.quantised_output:
            # The Sigmoid reads floating point; the next convolution reads a quantised copy of its output.
            nodes.append(helper.make_node("Sigmoid", [value], [f"sigmoid{number}"], f"sigmoid{number}"))
            value = quantised(f"next{number}", f"sigmoid{number}", np.float32(1 / 127))
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["logits"], "flatten"))
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "question",
        [helper.make_tensor_value_info("images", kind, ("N", CHANNELS, SIDE, SIDE))],
        [helper.make_tensor_value_info("logits", kind, ("N", CHANNELS))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def answer(question: Question) -> Dict[str, Any]:
    """Build and time a question's engines."""
    with tempfile.TemporaryDirectory() as folder:
        files = {sparse: Path(folder) / f"{'sparse' if sparse else 'dense'}.onnx" for sparse in (False, True)}
        for sparse, path in files.items():
            write_graph(question, path, sparse)
        return {"question": question.text, "expected": question.expected, **measure(files[False], files[True], BATCH)}


def main() -> None:
    """Answer the questions without results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.questions", description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with errors_in_one_line():
        require_engines()
    for name, question in QUESTIONS.items():
        path = out / f"question-{name}.json"
        if not is_measured(path):
            result = answer(question)
            write_json(path, result)
            print(path.name, result.get("error") or result["explanation"]["verdict"], flush=True)
    end_with_errors(out, "question")


if __name__ == "__main__":
    main()
