"""The GPUs that estimates know, with NVIDIA's figures.

Rates are dense: NVIDIA's tables often show sparse rates, which are twice as high. FP16 rates are those with FP16
accumulation, as all of TensorRT 8.6's sparse FP16 convolutions have. GeForce cards accumulate in FP32 at half the rate,
all others at the same one.
"""

from __future__ import annotations

__all__ = ["DEFAULT_GPU", "GPUS", "GPUSpec", "find_spec"]

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from deploy.machine import find_gpu
from sparsegpt_core.errors import InputError


@dataclass(frozen=True)
class GPUSpec:
    """What NVIDIA says of one GPU."""

    name: str
    """The name in the table, such as ``a100``."""
    multiprocessors: int
    """Streaming multiprocessors."""
    clock_hz: float
    """Boost clock, at which the rates hold."""
    fp16_flops: float
    """Dense FP16 tensor operations a second; a multiply-add counts as two."""
    int8_ops: float
    """Dense INT8 tensor operations a second."""
    bandwidth: float
    """Bytes a second between memory and the GPU."""
    device: str
    """What the driver calls it: a regular expression for the name after ``NVIDIA``. Empty for Jetsons, whose driver
    says ``Orin`` of every module."""
    source: str
    """NVIDIA's document with these figures."""


_AMPERE = "NVIDIA A100 Tensor Core GPU Architecture, 2020"
_GA102 = "NVIDIA Ampere GA102 GPU Architecture, 2021"
_ADA = "NVIDIA Ada GPU Architecture, 2023"
_ORIN = "NVIDIA Jetson Orin series data sheet, 2023"


def _spec(name: str, sms: int, mhz: int, fp16: float, int8: float, gb_s: float, device: str, source: str) -> GPUSpec:
    return GPUSpec(name, sms, mhz * 1e6, fp16 * 1e12, int8 * 1e12, gb_s * 1e9, device, source)


GPUS: Mapping[str, GPUSpec] = {
    spec.name: spec
    for spec in (
        # name, SMs, MHz, dense FP16 TFLOP/s, dense INT8 TOP/s, GB/s, the driver's name, source
        _spec("a100", 108, 1410, 312, 624, 1555, "A100.*40GB", _AMPERE),
        _spec("a100-80gb", 108, 1410, 312, 624, 2039, "A100.*80GB.*", "NVIDIA A100 80GB data sheet, SXM"),
        _spec("a30", 56, 1440, 165, 330, 933, "A30", "NVIDIA A30 data sheet"),
        _spec("a10", 72, 1695, 125, 250, 600, "A10", "NVIDIA A10 data sheet"),
        _spec("a40", 84, 1740, 149.7, 299.3, 696, "A40", "NVIDIA A40 data sheet"),
        _spec("a2", 10, 1770, 18, 36, 200, "A2", "NVIDIA A2 data sheet"),
        _spec("a6000", 84, 1800, 154.8, 309.7, 768, "RTX A6000", _GA102),
        _spec("rtx3060", 28, 1777, 51, 102, 360, "GeForce RTX 3060", _GA102),
        _spec("rtx3070", 46, 1725, 81.3, 162.6, 448, "GeForce RTX 3070", _GA102),
        _spec("rtx3080", 68, 1710, 119, 238, 760, "GeForce RTX 3080", _GA102),
        _spec("rtx3090", 82, 1695, 142, 284, 936, "GeForce RTX 3090", _GA102),
        _spec("l4", 58, 2040, 121, 242.5, 300, "L4", "NVIDIA L4 data sheet"),
        _spec("l40s", 142, 2520, 366, 733, 864, "L40S", "NVIDIA L40S data sheet"),
        _spec("rtx4060", 24, 2460, 60.5, 121, 272, "GeForce RTX 4060", _ADA),
        _spec("rtx4070", 46, 2475, 116.6, 233.2, 504, "GeForce RTX 4070", _ADA),
        _spec("rtx4080", 76, 2505, 194.9, 389.9, 716.8, "GeForce RTX 4080", _ADA),
        _spec("rtx4090", 128, 2520, 330.3, 660.6, 1008, "GeForce RTX 4090", _ADA),
        _spec("rtx6000-ada", 142, 2505, 364.2, 728.5, 960, "RTX 6000 Ada Generation", _ADA),
        _spec("h100", 132, 1830, 989.4, 1978.9, 3350, "H100 80GB HBM3", "NVIDIA H100 data sheet, SXM"),
        _spec("h100-pcie", 114, 1620, 756, 1513, 2000, "H100 PCIe", "NVIDIA H100 data sheet, PCIe"),
        _spec("h200", 132, 1830, 989.4, 1978.9, 4800, "H200", "NVIDIA H200 data sheet, SXM"),
        _spec("rtx5090", 170, 2407, 419, 838, 1792, "GeForce RTX 5090", "NVIDIA RTX Blackwell GPU Architecture"),
        _spec("orin-nano", 8, 625, 10, 20, 68, "", _ORIN),
        _spec("orin-nano-super", 8, 1020, 16.75, 33.5, 102, "", _ORIN),
        _spec("orin-nx", 8, 918, 15, 30, 102.4, "", _ORIN),
        _spec("orin-agx", 16, 1300, 42.5, 85, 204.8, "", _ORIN),
    )
}
"""The known GPUs by name."""

DEFAULT_GPU = "a100"
"""The GPU of an estimate where none is given and this machine has none of the table."""


def find_spec(name: Optional[str] = None) -> GPUSpec:
    """Return a GPU of the table.

    Args:
        name: A key of ``GPUS``. None for this machine's GPU, or for ``DEFAULT_GPU`` where the table does not have it.

    Raises:
        InputError: The table has no such GPU.

    Example:
        >>> find_spec("rtx3060").multiprocessors
        28
    """
    if name is not None:
        if name.lower() not in GPUS:
            raise InputError(f"no GPU '{name}' is known to estimates", f"Use one of {', '.join(GPUS)}.")
        return GPUS[name.lower()]
    found = find_gpu()
    for spec in GPUS.values():
        if found is not None and re.fullmatch(rf"(NVIDIA )?{spec.device}", found.name):
            return spec
    return GPUS[DEFAULT_GPU]
