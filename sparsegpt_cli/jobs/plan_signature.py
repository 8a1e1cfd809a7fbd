"""Reads the inputs and outputs of a plan from its sidecar, since only TensorRT can read the plan."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, helper

from deploy.builder import load_plan
from export.triton import PlanSignature
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import sidecar_path

__all__ = ["read_signature"]


def read_signature(plan: Path, server: str = "Triton") -> PlanSignature:
    """Read a plan's inputs and outputs.

    Args:
        plan: The plan, with its sidecar next to it.
        server: The program that is to run the plan, for messages.

    Raises:
        InputError: The plan differs from its sidecar, or is a plan of TensorRT-RTX.
    """
    _, record = load_plan(plan)
    try:
        backend = record["backend"]
        inputs, outputs = (
            [
                helper.make_tensor_value_info(each["name"], TensorProto.DataType.Value(each["dtype"]), each["dims"])
                for each in record[field]
            ]
            for field in ("inputs", "outputs")
        )
        largest = min(each["shapes"][2][0] for each in record["inputs"] if each["dims"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{sidecar_path(plan)} is not complete", "Build the plan again.") from error
    if backend != "tensorrt":
        raise InputError(
            f"{plan} is a plan of {backend}, and {server} runs plans of tensorrt only", "Build with --backend tensorrt."
        )
    return PlanSignature(helper.make_graph([], "plan", inputs, outputs), largest)
