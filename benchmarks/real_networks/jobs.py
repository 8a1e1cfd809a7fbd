"""What is measured: a method on a network, on one draw of the calibration photos."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GPUS", "ONNXSIM", "PRECISE", "PRECISIONS", "ROWS", "TARGET", "MethodJob"]

ONNXSIM = "onnxsim"
ROWS = {
    ("magnitude", "all"): "magnitude",
    ("sparsegpt", "all"): "SparseGPT as published",
    (ONNXSIM, "all"): "onnxsim",
    ("fast", "all"): "`fast`, `--layers all`",
    ("balanced", "all"): "`balanced`, `--layers all`",
    ("best", "all"): "`best`, `--layers all`",
    ("balanced", "pays"): "`balanced`, `--layers pays` (the default)",
}
"""The title of each method and choice of layers, in the order of tables."""
PRECISE = (("balanced", "all"), ("balanced", "pays"))
"""The rows that are measured in FP16 and INT8 too."""
GPUS = ("a100", "l4", "orin-nx")
PRECISIONS = ("fp16", "int8")
TARGET = "a100"
"""The GPU that decides which layers pay, in FP16, with 8 images."""


@dataclass(frozen=True)
class MethodJob:
    """A method on a network of :mod:`benchmarks.real_networks.networks`."""

    network: str
    method: str
    layers: str
    draw: int
    """The seed of the draw of calibration photos."""
