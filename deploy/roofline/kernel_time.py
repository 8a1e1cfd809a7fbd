"""Estimates the time of one kernel: tiles on multiprocessors, or bytes on the memory bus, whichever takes longer.

docs/estimate.md derives the formulas, and compares them with published measurements.
"""

from __future__ import annotations

__all__ = ["KernelTime", "dense_time", "sparse_time"]

import math
from dataclasses import dataclass
from typing import Tuple

from deploy.graph import Product, Workload
from deploy.roofline.gpus import GPUSpec

# Output tiles of CUTLASS's and TensorRT's tensor core kernels: rows (positions) and columns (output channels).
_TILES = ((256, 128), (128, 256), (128, 128), (64, 128), (256, 64), (128, 64), (64, 64))
# 64 columns leave sparse kernels without a gain: NVIDIA/TensorRT issue 1403, a convolution of 64 by 64 channels.
_SPARSE_TILES = tuple((rows, columns) for rows, columns in _TILES if columns >= 128)
# Into how many parts a kernel may divide the sum, so that a few tiles keep all multiprocessors busy.
_SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)
# Of the data sheet's rate: assumed, as copy benchmarks usually reach 80 to 90 %.
_BANDWIDTH_FRACTION = 0.8
# A sparse weight keeps two of four values and two bits of position for each: 36 bits of 64 in FP16, 20 of 32 in INT8.
_SAVED_FP16, _SAVED_INT8 = 7 / 16, 3 / 8
# The four constants below are fitted to the published measurements in docs/estimate.md.
# Loading one operand of a tile from shared memory, in tensor core steps of one row or column. A tile of 256 × 128 loads
# 1/256 + 1/128 of an operand for each step, so it reaches 74 % of the peak rate.
_LOAD_COST = 30
# How much faster sparse tensor core instructions are in practice; NVIDIA's tables say 2.
_SPARSE_RATE = 1.2
# The time between two kernels, and the time in which a tile fills its pipeline and stores its result.
_LAUNCH_CYCLES = 6000
_TILE_CYCLES = 1500


@dataclass(frozen=True)
class KernelTime:
    """The estimated time of one kernel."""

    seconds: float
    """Seconds for one inference."""
    bound: str
    """What takes most of it: ``compute``, ``memory`` or ``launch``."""


def dense_time(work: Workload, gpu: GPUSpec, int8: bool = False) -> KernelTime:
    """Estimate the time of a node with dense weights.

    Args:
        work: The node's work.
        gpu: The GPU.
        int8: Whether the node computes in INT8, else in FP16.

    Example:
        >>> from deploy.roofline import GPUS
        >>> work = Workload(bytes=2 * 3 * 4096**2, weight_bytes=2 * 4096**2, product=Product(4096, 4096, 4096))
        >>> dense_time(work, GPUS["a100"]).bound
        'compute'
    """
    compute = _compute_seconds(work.product, gpu, int8) if work.product else 0.0
    return _roofline(compute, work.bytes, gpu, int8)


def sparse_time(work: Workload, gpu: GPUSpec, int8: bool = False) -> KernelTime:
    """Estimate the time of a layer with 2:4 weights on a sparse kernel. Arguments are those of :func:`dense_time`.

    Example:
        >>> from deploy.roofline import GPUS
        >>> work = Workload(bytes=2 * 3 * 4096**2, weight_bytes=2 * 4096**2, product=Product(4096, 4096, 4096))
        >>> dense_time(work, GPUS["a100"]).seconds / sparse_time(work, GPUS["a100"]).seconds > 1.1
        True
    """
    compute = _compute_seconds(work.product, gpu, int8, sparse=True) if work.product else 0.0
    saved = (_SAVED_INT8 if int8 else _SAVED_FP16) * work.weight_bytes
    return _roofline(compute, work.bytes - saved, gpu, int8)


def _roofline(compute: float, fp16_bytes: float, gpu: GPUSpec, int8: bool) -> KernelTime:
    memory = fp16_bytes / (2 if int8 else 1) / (gpu.bandwidth * _BANDWIDTH_FRACTION)
    parts = {"compute": compute, "memory": memory, "launch": _LAUNCH_CYCLES / gpu.clock_hz}
    return KernelTime(max(compute, memory) + parts["launch"], max(parts, key=lambda name: parts[name]))


def _compute_seconds(product: Product, gpu: GPUSpec, int8: bool, sparse: bool = False) -> float:
    """Return the time of the best tile shape and the best split of the sum."""
    if product.groups > 1 and product.channels == 1:  # depthwise: CUDA cores keep up with the memory
        return 0.0
    return min(
        _tiled_seconds(product, tile, splits, gpu, int8, sparse)
        for tile in (_SPARSE_TILES if sparse else _TILES)
        for splits in _SPLITS
    )


def _tiled_seconds(
    product: Product, tile: Tuple[int, int], splits: int, gpu: GPUSpec, int8: bool, sparse: bool
) -> float:
    """Return the time of waves of tiles, one tile on each multiprocessor."""
    rows, columns = tile
    width = (2 if int8 else 1) * (2 if sparse else 1)  # INT8 and sparse instructions each sum twice as many products
    channels = 4 if product.channels <= 4 else _round_up(product.channels, 8 * width)
    depth = _round_up(math.ceil(channels * product.taps / splits), 32 * width)
    tiles = math.ceil(product.rows / rows) * math.ceil(product.columns / columns) * product.groups
    waves = math.ceil(tiles * splits / gpu.multiprocessors)
    weights = 1 - (_SAVED_INT8 if int8 else _SAVED_FP16) if sparse else 1
    steps = 1 / (_SPARSE_RATE if sparse else 1) + _LOAD_COST * (1 / columns + weights / rows)
    rate = (gpu.int8_ops if int8 else gpu.fp16_flops) / gpu.multiprocessors
    seconds = waves * (2 * rows * columns * depth * steps / rate + _TILE_CYCLES / gpu.clock_hz)
    if splits > 1:  # every part writes its sums in FP32, and one kernel reads them
        seconds += 8 * splits * product.rows * product.columns * product.groups / gpu.bandwidth
    return seconds


def _round_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
