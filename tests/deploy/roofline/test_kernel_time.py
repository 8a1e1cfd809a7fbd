"""Times of kernels against hand computation, and properties that every roofline has."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.graph import Product, Workload
from deploy.roofline import GPUS, GPUSpec, dense_time, sparse_time

SPECS = st.sampled_from(sorted(GPUS)).map(GPUS.__getitem__)


def convolution(rows: int, inputs: int, outputs: int, taps: int = 1) -> Workload:
    weights = inputs * outputs * taps
    return Workload(2 * (rows * (inputs + outputs) + weights), 2 * weights, Product(rows, outputs, inputs, taps))


def gain(work: Workload, gpu: GPUSpec, int8: bool = False) -> float:
    return dense_time(work, gpu, int8).seconds / sparse_time(work, gpu, int8).seconds


WORK = st.builds(
    convolution,
    st.integers(1, 1 << 18),
    st.integers(1, 2048),
    st.integers(1, 2048),
    st.sampled_from([1, 9]),
)


def test_one_layer_by_hand() -> None:
    """512 to 512 channels, 3×3, 8 images of 28²: by hand on an A100, with the tile that is best for it."""
    gpu, rows, depth = GPUS["a100"], 8 * 28 * 28, 512 * 9
    rate = 312e12 / 108  # of one multiprocessor
    assert ceil(rows / 128) * ceil(512 / 256) == 98  # tiles of 128 × 256, which fit into one wave
    launch = 6000 / 1.41e9
    main_loop = 2 * 128 * 256 * depth * (1 + 30 / 128 + 30 / 256) / rate
    found = dense_time(convolution(rows, 512, 512, 9), gpu)
    assert found.seconds == pytest.approx(main_loop + 1500 / 1.41e9 + launch)
    assert found.bound == "compute"
    sparse_loop = 2 * 128 * 256 * depth * (1 / 1.2 + 30 / 256 + 30 * 9 / 16 / 128) / rate
    sparse = sparse_time(convolution(rows, 512, 512, 9), gpu)
    assert sparse.seconds == pytest.approx(sparse_loop + 1500 / 1.41e9 + launch)


def test_bytes_by_hand() -> None:
    work = convolution(8 * 56 * 56, 64, 256)
    moved = 2 * (8 * 56 * 56 * (64 + 256) + 64 * 256)
    found = dense_time(work, GPUS["l4"])
    assert found.bound == "memory"
    assert found.seconds == pytest.approx(moved / (0.8 * 300e9) + 6000 / 2.04e9)
    mover = dense_time(Workload(moved), GPUS["l4"])
    assert mover == found
    assert dense_time(Workload(2), GPUS["l4"]).bound == "launch"
    depthwise = Workload(moved, 1, Product(8 * 56 * 56, 1, 1, 9, groups=160))
    assert dense_time(depthwise, GPUS["l4"]) == found
    grouped = replace(depthwise, product=Product(8 * 56 * 56, 8, 8, 9, groups=32))
    assert dense_time(grouped, GPUS["l4"]).seconds > found.seconds


@given(WORK, SPECS, st.booleans(), st.floats(1, 8))
def test_no_gpu_is_slower_with_more_bandwidth_or_rate(work: Workload, gpu: GPUSpec, int8: bool, factor: float) -> None:
    more_bytes = replace(gpu, bandwidth=gpu.bandwidth * factor)
    faster = replace(gpu, fp16_flops=gpu.fp16_flops * factor, int8_ops=gpu.int8_ops * factor)
    for time in (dense_time, sparse_time):
        assert time(work, more_bytes, int8).seconds <= time(work, gpu, int8).seconds
        assert time(work, faster, int8).seconds <= time(work, gpu, int8).seconds


@given(WORK, SPECS)
def test_no_time_beats_the_data_sheet(work: Workload, gpu: GPUSpec) -> None:
    limit = max(work.flops / gpu.fp16_flops, work.bytes / gpu.bandwidth)
    assert dense_time(work, gpu).seconds > limit
    assert sparse_time(work, gpu).seconds > max(limit / 2, (work.bytes - work.weight_bytes / 2) / gpu.bandwidth)


@given(WORK, SPECS)
def test_int8_is_no_slower_than_fp16(work: Workload, gpu: GPUSpec) -> None:
    fp16, int8 = dense_time(work, gpu).seconds, dense_time(work, gpu, int8=True).seconds
    assert int8 < 1.001 * fp16  # NVIDIA rounds the two rates


@given(st.integers(8192, 1 << 17), st.integers(1, 8), st.integers(2, 8), st.sampled_from([1, 9]), SPECS, st.booleans())
def test_sparse_kernels_win_in_wide_layers_that_computing_bounds(
    rows: int, inputs: int, outputs: int, taps: int, gpu: GPUSpec, int8: bool
) -> None:
    work = convolution(rows, 256 * inputs, 256 * outputs, taps)
    found = gain(work, gpu, int8)
    if dense_time(work, gpu, int8).bound == "compute":
        assert 1 <= found < 2
    elif dense_time(work, gpu, int8).bound == "memory":
        assert 1 <= found <= 16 / 9  # what FP16 weights shrink


@pytest.mark.parametrize("taps", [1, 9])
def test_more_multiprocessors_need_larger_layers(taps: int) -> None:
    def least_rows(multiprocessors: int) -> int:
        share = multiprocessors / 108
        gpu = replace(
            GPUS["a100"],
            multiprocessors=multiprocessors,
            fp16_flops=312e12 * share,
            bandwidth=1555e9 * share,
        )
        return next(rows for rows in range(64, 1 << 17, 64) if gain(convolution(rows, 512, 512, taps), gpu) > 1.1)

    needed = [least_rows(multiprocessors) for multiprocessors in (8, 28, 56, 108, 216)]
    assert needed == sorted(needed)
    assert needed[0] < needed[-1]


def test_few_output_channels_gain_nothing() -> None:
    """NVIDIA/TensorRT issue 1403: 64 to 64 channels, 3×3, on 2176 × 3840; no sparse kernel was chosen."""
    assert all(
        gain(convolution(2176 * 3840, 64, 64, 9), gpu, int8) < 1.02 for gpu in GPUS.values() for int8 in (False, True)
    )
