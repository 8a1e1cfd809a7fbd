"""Exports the layers of engines and their times to files that NVIDIA's performance tools read.

- ``layers_B.json`` and ``profile_B.json``: a list of the inspector's layers, and of their times. The trt-perf-analysis
  skill in https://github.com/NVIDIA/TensorRT reads such pairs (``scripts/trt_perf/data.py``).
- ``graph_B.json``: the inspector's whole JSON, as ``trtexec --exportLayerInfo`` writes it. TensorRT Engine Explorer
  (``trex/parser.py``) reads it with ``profile_B.json``, which is in the format of ``trtexec --exportProfile``
  (``samples/common/sampleReporting.cpp``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from deploy.graph import random_inputs
from deploy.machine import find_gpu
from deploy.measure import measure_layer_times
from deploy.sessions import TensorRTSession
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import write_json

__all__ = ["export_layers", "exported_names"]

_RUNS = 100  # profiled runs


def exported_names(arm: str) -> Tuple[str, str, str]:
    """Return the file names of an arm: its layers, its profile and its graph.

    Example:
        >>> exported_names("C")
        ('layers_C.json', 'profile_C.json', 'graph_C.json')
    """
    return f"layers_{arm}.json", f"profile_{arm}.json", f"graph_{arm}.json"


def export_layers(plans: Mapping[str, Path], folder: Path) -> Tuple[List[Path], List[str]]:
    """Inspect and profile engines on this GPU, and write three files for each.

    Each layer is timed with random images of the profile's opt shape. Nothing is written unless all engines run.

    Args:
        plans: The plans by arm, such as ``B`` and ``C``.
        folder: The folder for the files; created if it does not exist.

    Returns:
        The files, and a sentence for each engine whose layers do not match their times.

    Raises:
        InputError: There is no plan or no GPU, a plan does not match its sidecar, or the GPU fails.
        ModelError: This TensorRT or this GPU cannot load a plan.
        MissingDependencyError: The backend or PyCUDA is not installed.

    Example:
        >>> files, unmatched = export_layers({"C": Path("sparse.plan")}, Path("layers"))  # doctest: +SKIP
        >>> [file.name for file in files]  # doctest: +SKIP
        ['layers_C.json', 'profile_C.json', 'graph_C.json']
    """
    if not plans:
        raise InputError("there is no plan to export layers of", "Give `plan_b`, `plan_c` or both.")
    if find_gpu() is None:
        raise InputError(
            "an engine's layers can be read only on its GPU, and there is no GPU here",
            "Run it on the machine of the benchmark.",
        )
    contents: Dict[Path, Any] = {}
    unmatched = []
    for arm, plan in plans.items():
        information, times = _profile(plan)
        layers, profile = information["Layers"], _profile_records(times)
        if {layer["Name"] for layer in layers} != set(times):
            unmatched.append(f"In {plan}, layers and profiled layers differ, so NVIDIA's skill refuses the pair.")
        contents.update(zip((folder / name for name in exported_names(arm)), (layers, profile, information)))
    for path, content in contents.items():
        write_json(path, content)
    return list(contents), unmatched


def _profile(plan: Path) -> Tuple[Dict[str, Any], Dict[str, List[float]]]:
    """Return the inspector's JSON and the layers' times in milliseconds."""
    with TensorRTSession(plan) as session:
        engine = session.engine
        shapes = {tensor.name: engine.profile(tensor.name)[1] for tensor in engine.inputs}
        images = random_inputs(shapes, {tensor.name: tensor.dtype for tensor in engine.inputs})
        return engine.information(), measure_layer_times(session, images, iterations=_RUNS)


def _profile_records(times: Mapping[str, Sequence[float]]) -> List[Dict[str, Any]]:
    total = sum(map(sum, times.values()))
    records = [
        {
            "name": name,
            "timeMs": sum(taken),
            "averageMs": float(np.mean(taken)),
            "medianMs": float(np.median(taken)),
            "percentage": 100 * sum(taken) / total,
        }
        for name, taken in times.items()
    ]
    return [{"count": _RUNS}, *records]
