"""Records the GPU's clocks, power and temperature during a measurement, through NVML."""

from __future__ import annotations

__all__ = ["GPUMonitor"]

import contextlib
import importlib
import threading
from types import TracebackType
from typing import Any, Callable, Dict, List, Optional, Type

import numpy as np

_INTERVAL_S = 0.1

# Bits of nvmlClocksEventReasons in nvml.h. Idle (1) is left out, since it does not slow down work.
_REASONS = {
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}


class GPUMonitor:
    """Samples a GPU in the background inside a ``with``, or several. There is no report if NVML cannot be read.

    Args:
        pci_bus_id: The GPU's PCI address, such as ``0000:65:00.0``; NVML and CUDA number GPUs differently. None for
            NVML's first GPU.
        interval: Seconds between two samples.

    Example:
        >>> with GPUMonitor() as monitor:
        ...     pass  # the measurement
        >>> monitor.report  # doctest: +SKIP
        {'name': 'NVIDIA A100', ..., 'sm_mhz': {'low': 1410.0, 'median': 1410.0, 'high': 1410.0}, ...}
    """

    def __init__(self, pci_bus_id: Optional[str] = None, interval: float = _INTERVAL_S) -> None:
        self._bus, self._interval = pci_bus_id, interval
        self._nvml: Any = None
        self._device: Any = None
        self._samples: List[Dict[str, Optional[float]]] = []
        self._about: Dict[str, Any] = {}
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> GPUMonitor:
        self._nvml = _try(lambda: importlib.import_module("pynvml"))
        _try(lambda: self._nvml.nvmlInit())
        self._device = _try(self._find)
        if self._device is not None:
            self._about = self._describe()
            self._samples.append(self._sample())
            self._stop.clear()
            self._thread = threading.Thread(target=self._watch, name="nvml", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            self._samples.append(self._sample())
        _try(lambda: self._nvml.nvmlShutdown())

    @property
    def report(self) -> Optional[Dict[str, Any]]:
        """The samples in summary, for JSON; None if NVML is missing or does not know the GPU.

        - ``sm_mhz``, ``memory_mhz``, ``power_w``, ``temperature_c``: ``low``, ``median`` and ``high``, or None.
        - ``throttled``: each reason that lowered the clocks, with its share of the samples.
        - ``locked``: True if application clocks were set, else None, since NVML does not report ``nvidia-smi -lgc``.
        - ``steady``: whether the SM clock had one value in all samples.
        """
        if self._device is None:
            return None
        reasons = self._values("reasons")
        masks = np.array(reasons, dtype=np.int64)
        shares = {name: float(np.mean(masks & bit != 0)) for bit, name in _REASONS.items()} if reasons else {}
        clocks = self._values("sm_mhz")
        return {
            **self._about,
            "samples": len(self._samples),
            **{field: self._range(field) for field in ("sm_mhz", "memory_mhz", "power_w", "temperature_c")},
            "throttled": {name: share for name, share in shares.items() if share} if reasons else None,
            "locked": True if shares.get("applications_clocks_setting") else None,
            "steady": len(set(clocks)) == 1 if clocks else None,
        }

    def _find(self) -> Any:
        nvml = self._nvml
        if self._bus is None:
            return nvml.nvmlDeviceGetHandleByIndex(0)
        return nvml.nvmlDeviceGetHandleByPciBusId(self._bus.encode())

    def _describe(self) -> Dict[str, Any]:
        nvml, device = self._nvml, self._device
        return {
            "name": _text(_try(lambda: nvml.nvmlDeviceGetName(device))),
            "compute_capability": _try(lambda: "{}.{}".format(*nvml.nvmlDeviceGetCudaComputeCapability(device))),
            "driver": _text(_try(lambda: nvml.nvmlSystemGetDriverVersion())),
            "max_sm_mhz": _try(lambda: nvml.nvmlDeviceGetMaxClockInfo(device, nvml.NVML_CLOCK_SM)),
            "max_memory_mhz": _try(lambda: nvml.nvmlDeviceGetMaxClockInfo(device, nvml.NVML_CLOCK_MEM)),
        }

    def _sample(self) -> Dict[str, Optional[float]]:
        nvml, device = self._nvml, self._device
        reasons = _try(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(device))
        if reasons is None:  # the call's name before driver 535
            reasons = _try(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device))
        return {
            "sm_mhz": _try(lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM)),
            "memory_mhz": _try(lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM)),
            "power_w": _try(lambda: nvml.nvmlDeviceGetPowerUsage(device) / 1000),
            "temperature_c": _try(lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)),
            "reasons": reasons,
        }

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._samples.append(self._sample())

    def _values(self, field: str) -> List[float]:
        return [value for value in (sample[field] for sample in self._samples) if value is not None]

    def _range(self, field: str) -> Optional[Dict[str, float]]:
        values = self._values(field)
        if not values:
            return None
        return {"low": float(min(values)), "median": float(np.median(values)), "high": float(max(values))}


def _try(read: Callable[[], Any]) -> Any:
    """Return the value, or None if this NVML, GPU or driver cannot read it: a measurement must not fail."""
    with contextlib.suppress(Exception):
        return read()
    return None


def _text(value: Any) -> Optional[str]:
    """Return text, since old versions of pynvml return bytes."""
    return value.decode() if isinstance(value, bytes) else value
