"""NVIDIA's figures against what their tensor cores can do in a clock, and GPUs by name."""

from __future__ import annotations

import pytest

from deploy.machine import GPU
from deploy.roofline import DEFAULT_GPU, GPUS, find_spec, gpus
from sparsegpt_core.errors import InputError

# Dense FP16 operations of one SM in one clock: four tensor cores with 256 (A100, Orin), 128 (other Ampere, Ada,
# GeForce's Blackwell) or 512 (Hopper) multiply-adds.
_LARGE = ("a100", "a100-80gb", "a30", "orin-nano", "orin-nano-super", "orin-nx", "orin-agx")


@pytest.mark.parametrize("name", GPUS)
def test_rates_are_dense_and_fit_multiprocessors_and_clock(name: str) -> None:
    spec = GPUS[name]
    in_a_clock = 2048 if name in _LARGE else 4096 if name.startswith("h") else 1024
    assert spec.name == name
    assert spec.fp16_flops == pytest.approx(spec.multiprocessors * spec.clock_hz * in_a_clock, rel=0.03)
    assert spec.int8_ops == pytest.approx(2 * spec.fp16_flops, rel=0.03)
    assert 80 < spec.fp16_flops / spec.bandwidth < 450
    assert spec.source.startswith("NVIDIA ")


def test_gpus_by_name() -> None:
    assert find_spec("L40S") is GPUS["l40s"]
    with pytest.raises(InputError, match="no GPU 'v100' is known") as caught:
        find_spec("v100")
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in GPUS)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA GeForce RTX 3060", "rtx3060"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA GeForce RTX 3060 Ti", DEFAULT_GPU),  # another chip
        ("Orin", DEFAULT_GPU),
        ("Tesla V100-SXM2-16GB", DEFAULT_GPU),
        (None, DEFAULT_GPU),
    ],
)
def test_this_machines_gpu(device: str | None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = None if device is None else GPU(device, None, "8.0", "12.8")
    monkeypatch.setattr(gpus, "find_gpu", lambda: found)
    assert find_spec().name == name
