"""NVML's real Python bindings have every name that the GPU monitor uses, and no reason that it does not know."""

from __future__ import annotations

import ast

import pytest

from deploy.measure import gpu_monitor
from tests.support.paths import ROOT
from tests.support.standin import BINDINGS

pytestmark = pytest.mark.skipif(not BINDINGS.is_dir(), reason="`make gpu-contract` installs nvidia-ml-py")


def test_every_name_exists():
    import pynvml

    tree = ast.parse((ROOT / "deploy/measure/gpu_monitor.py").read_text())
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    names = {node.attr for node in attributes if ast.unparse(node.value) in {"nvml", "self._nvml"}}
    assert "nvmlDeviceGetClockInfo" in names
    assert {name for name in names if not hasattr(pynvml, name)} == set()


def test_every_reason_for_lower_clocks_is_known():
    import pynvml

    found = {name: getattr(pynvml, name) for name in dir(pynvml) if name.startswith("nvmlClocksEventReason")}
    for name in ("None", "All", "GpuIdle"):
        del found[f"nvmlClocksEventReason{name}"]
    assert found
    assert set(found.values()) == set(gpu_monitor._REASONS)
