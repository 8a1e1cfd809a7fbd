"""What is measured: a door on a network, or a tool on a file."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ARMS", "DOORS", "OTHER_ARMS", "DoorJob", "FileJob"]

DOORS = ("pytorch", "folded", "unfolded", "other kernels")
"""The module itself; its ONNX files, with batch norms folded into the convolutions and as operators of their own; and
the module without oneDNN, which shows what rounding alone changes."""

ARMS = ("magnitude", "fast", "balanced")
"""Our ways to prune, in running order."""
OTHER_ARMS = ("polygraphy", "polygraphy, our layers", "onnxsim", "onnxsim, our layers")
"""Other tools, in running order. An arm on our layers is the same file, in which the weights that our arms leave
dense are dense again."""


@dataclass(frozen=True)
class DoorJob:
    """A door on a network of :mod:`benchmarks.onnx.networks`. ``round`` counts repetitions."""

    network: str
    door: str
    images: int
    round: int = 0


@dataclass(frozen=True)
class FileJob:
    """A tool on a file of :mod:`benchmarks.onnx.inputs`, with a number of calibration images."""

    file: str
    arm: str
    images: int
