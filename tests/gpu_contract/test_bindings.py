"""Real Python bindings of four versions of TensorRT have what deploy uses.

They are imported on empty stand-ins for TensorRT's own libraries, so nothing of TensorRT itself runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest

from deploy.builder.settings import HARDWARE_LEVELS
from deploy.sessions.engine import _DTYPES
from tests.support.paths import ROOT
from tests.support.standin import BINDINGS, compile_library, environment, undefined_symbols
from tests.support.tensorrt_names import find_uses

pytestmark = pytest.mark.skipif(not BINDINGS.is_dir(), reason="`make gpu-contract` installs these bindings")

RTX = {
    "ComputeCapability",  # backends.known_compute_capabilities
    "DynamicShapesKernelSpecializationStrategy",  # Engine._new_context, and the next line too
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
    "IExecutionContext.is_stream_capturable",  # InferenceStream.capture
}
"""What only TensorRT-RTX has, and the code that asks for it first."""

RUNTIME_CONFIG = {"ICudaEngine.create_runtime_config", "IRuntimeConfig"}  # Engine._new_context, on TensorRT-RTX alone
LATER_LEVEL = {"HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"}  # compiler._hardware_level says that it is missing
MISSING = {
    # Precisions are flags before strong types: compiler.precision_flags. Without a monitor a build shows no percent:
    # progress_monitor.build_monitor. No engine has tensors of INT64.
    "8.6.1": RTX
    | LATER_LEVEL
    | RUNTIME_CONFIG
    | {"IBuilderConfig.progress_monitor", "IProgressMonitor", "NetworkDefinitionCreationFlag.STRONGLY_TYPED"}
    | {"DataType.INT64"},
    "10.3.0": RTX | LATER_LEVEL | RUNTIME_CONFIG,
    "10.16.1.11": RTX,
    # Types decide all precisions but TF32: compiler.precision_flags. Contexts share profiles: compiler.share_profiles.
    "11.4.0.106": RTX | {"BuilderFlag.FP16", "BuilderFlag.INT8", "PreviewFeature.PROFILE_SHARING_0806"},
}
"""What each version lacks, and the code that does without it."""

REFUSED = {version: {"ICudaEngine.create_execution_context(runtime_config=)"} for version in ("8.6.1", "10.3.0")}
"""Calls that a version refuses. Engine._new_context makes this one on TensorRT-RTX alone."""

NAMES = [
    *(f"DataType.{name}" for name in _DTYPES),  # names that an engine's tensors have
    *(f"HardwareCompatibilityLevel.{level.upper().replace('-', '_')}" for level in HARDWARE_LEVELS),
    *(f"ILogger.Severity.{name}" for name in ("WARNING", "ERROR", "INTERNAL_ERROR")),  # names that deploy compares
    *(f"BuilderFlag.{name}" for name in ("TF32", "INT8")),
    "PreviewFeature.PROFILE_SHARING_0806",
]
"""Names that deploy has as text."""


@pytest.fixture(scope="module", params=sorted(MISSING))
def report(request, tmp_path_factory) -> dict[str, Any]:
    folder, libraries = BINDINGS / request.param, tmp_path_factory.mktemp("libraries")
    module = next(folder.glob("tensorrt_bindings/tensorrt*.so"))
    content = module.read_bytes()
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers"):
        soname = f"lib{name}.so.{request.param.partition('.')[0]}"
        if soname.encode() in content:
            compile_library(libraries / soname, empty=undefined_symbols(module))
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.tensorrt_names", "tensorrt_bindings"],
        input=json.dumps({"uses": [asdict(use) for use in find_uses()], "names": NAMES}),
        env=environment(PYTHONPATH=f"{folder}:{ROOT}", LD_LIBRARY_PATH=str(libraries)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_else_is_missing(report):
    lacks = MISSING[report["version"]]
    deeper = {name for name in lacks if name.partition(".")[0] in lacks - {name}}  # names of classes that are missing
    assert set(report["missing"]) == lacks - deeper


def test_every_call_is_taken(report):
    assert set(report["refused"]) == REFUSED.get(report["version"], set()), report["refused"]


def test_an_optional_name_exists_in_one_version_at_least():
    optional = {use.name for use in find_uses() if use.optional}
    assert optional & set.intersection(*MISSING.values()) <= RTX  # test_names.py finds these in TensorRT-RTX
