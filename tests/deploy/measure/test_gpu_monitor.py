"""The GPU's clocks and power, from old, new and broken stand-ins for pynvml."""

from __future__ import annotations

import json
import sys
import threading
import time
from types import ModuleType

import pytest

from deploy.machine import find_gpu
from deploy.measure import GPUMonitor


class NVMLError(Exception):
    pass


def measured(**settings: object) -> dict | None:
    with GPUMonitor(interval=0.005, **settings) as monitor:
        time.sleep(0.05)
    return monitor.report


def test_a_monitor_joins_the_samples_of_several_measurements(nvml: ModuleType) -> None:
    monitor, samples = GPUMonitor(interval=60), []
    for _ in range(3):
        with monitor:
            pass
        samples.append(monitor.report["samples"])
    assert samples == [2, 4, 6]
    assert [name for name, *_ in nvml.calls].count("nvmlInit") == [name for name, *_ in nvml.calls].count(
        "nvmlShutdown"
    )
    assert not any(thread.name == "nvml" for thread in threading.enumerate())


def test_the_report_of_the_monitor(nvml: ModuleType) -> None:
    found = measured(pci_bus_id="0000:65:00.0")
    assert found == json.loads(json.dumps(found))
    assert found["samples"] > 3
    assert {key: found[key] for key in ("name", "compute_capability", "driver", "max_sm_mhz", "max_memory_mhz")} == {
        "name": "NVIDIA A100",
        "compute_capability": "8.0",
        "driver": "550.54",
        "max_sm_mhz": 1980,
        "max_memory_mhz": 1593,
    }
    assert found["sm_mhz"] == {"low": 1200, "median": 1200, "high": 1500}
    assert found["memory_mhz"] == {"low": 1593, "median": 1593, "high": 1593}
    assert found["power_w"]["median"] == 250.5
    assert found["temperature_c"]["high"] == 61
    assert found["throttled"] == {"applications_clocks_setting": 1.0, "sw_power_cap": 1.0}
    assert found["locked"] is True
    assert found["steady"] is False
    assert nvml.calls[:2] == [("nvmlInit",), ("nvmlDeviceGetHandleByPciBusId", b"0000:65:00.0")]
    assert nvml.calls[-1] == ("nvmlShutdown",)


def test_an_old_driver_and_a_gpu_that_reports_little(nvml: ModuleType) -> None:
    def refuse(*arguments: object) -> None:
        raise NVMLError("Not Supported")

    for name in ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksEventReasons"):
        setattr(nvml, name, refuse)
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda device: 0
    found = measured()
    assert (found["power_w"], found["temperature_c"]) == (None, None)
    assert (found["throttled"], found["locked"]) == ({}, None)
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = nvml.nvmlDeviceGetClockInfo = refuse
    del nvml.nvmlSystemGetDriverVersion
    found = measured()
    assert (found["throttled"], found["locked"], found["sm_mhz"], found["steady"]) == (None, None, None, None)
    assert found["driver"] is None
    assert found["name"] == "NVIDIA A100"


@pytest.mark.parametrize("step", ["import", "nvmlInit", "nvmlDeviceGetHandleByIndex"])
def test_without_nvml_there_is_no_report(nvml: ModuleType, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def refuse(*arguments: object) -> None:
        raise NVMLError("Driver Not Loaded")

    if step == "import":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    elif step == "nvmlInit":
        nvml.nvmlInit = nvml.nvmlDeviceGetHandleByIndex = nvml.nvmlShutdown = refuse
    else:
        nvml.nvmlDeviceGetHandleByIndex = refuse
    assert measured() is None


def test_the_monitor_ends_when_the_measurement_fails(nvml: ModuleType) -> None:
    with pytest.raises(ZeroDivisionError), GPUMonitor(interval=0.005) as monitor:
        raise ZeroDivisionError
    assert monitor.report is not None
    assert nvml.calls[-1] == ("nvmlShutdown",)


@pytest.mark.gpu
@pytest.mark.skipif(find_gpu() is None, reason="there is no GPU")
def test_on_a_real_gpu() -> None:
    pytest.importorskip("pynvml", reason="NVML is read through nvidia-ml-py")
    found = measured()
    assert found["name"]
    assert 0 < found["sm_mhz"]["high"] <= found["max_sm_mhz"]
