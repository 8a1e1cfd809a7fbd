"""NVML's real Python bindings have every name that the GPU monitor uses, and no reason that it does not know."""

from __future__ import annotations

import ast
import re

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


def test_every_reason_for_lower_clocks_has_its_name():
    import pynvml

    named = re.compile(r"nvmlClocks(?:Event|Throttle)Reason(?!All$|None$|GpuIdle$|UserDefinedClocks$)(\w+)")
    found = {getattr(pynvml, match[0]): match[1] for match in map(named.fullmatch, dir(pynvml)) if match}
    names = {bit: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for bit, name in found.items()}
    assert names == gpu_monitor._REASONS
