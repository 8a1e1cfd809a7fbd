"""Explain a sparse file from the plans and times that are there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from deploy.explain.evidence import Evidence
from deploy.explain.explanation import ExplainedLayer, Explanation
from deploy.explain.layer_reasons import explain
from deploy.explain.limits import is_small
from deploy.explain.plan_inspection import evidence_of_plan
from deploy.graph import OnnxFile
from deploy.machine import find_gpu
from deploy.measure import Ratio
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import read_json, sidecar_path
from sparsegpt_core.reasons import Reason

if TYPE_CHECKING:
    from export.audit import AuditedLayer

__all__ = ["explain_plans"]

_NO_ENGINES = "Unknown without engines: which kernels the builder chooses. Give --plan-c, and --plan-b to compare with."
_NO_GPU = "Without a GPU the engine inspector cannot be asked: which kernels run is known from the build log alone."
_NO_TIMES = "Unknown without times: what each layer gains. Give --times, the JSON of `benchmark --out`."


def explain_plans(
    sparse: Path, plan_b: Optional[Path] = None, plan_c: Optional[Path] = None, measured: Optional[Path] = None
) -> Tuple[Explanation, List[str]]:
    """Explain a sparse ONNX file as far as what is there goes.

    Args:
        sparse: The file.
        plan_b: Its engine without the sparse flag.
        plan_c: Its engine with it.
        measured: What ``benchmark --out`` wrote: times of layers, speed-up, noise.

    Returns:
        The explanation, and what stays unknown and why.

    Raises:
        InputError: A file is missing or damaged, or a plan is not what it is given as.
        ModelError: This TensorRT or this GPU cannot load a plan.
        MissingDependencyError: onnx, the backend or PyCUDA is not installed.
    """
    file = OnnxFile(sparse)
    audit, has_sparse_kernels = file.audit, file.graph.has_sparse_kernels
    found = _read_measured(measured, file) if measured else {}
    inspected = find_gpu() is not None
    evidence: Dict[str, Evidence] = {}
    for arm, plan in (("B", plan_b), ("C", plan_c)):
        times = found.get("times", {}).get(arm, {})
        if plan:
            evidence[arm] = evidence_of_plan(plan, has_sparse_kernels, times, inspected)
            _check_plan(arm, plan, evidence[arm], file)
        else:
            evidence[arm] = Evidence(arm == "C", has_sparse_kernels, times=times)
    explanation = explain(
        audit, evidence["C"], evidence["B"], found.get("speedup"), found.get("noise", 0.0), found.get("batch")
    )
    if plan_c is None:
        explanation = replace(explanation, layers=tuple(map(_without_engine, explanation.layers, audit.layers)))
    known = {_NO_ENGINES: plan_c is not None, _NO_GPU: inspected or plan_c is None, _NO_TIMES: measured is not None}
    return explanation, [note for note, holds in known.items() if not holds]


def _check_plan(arm: str, plan: Path, evidence: Evidence, sparse: OnnxFile) -> None:
    if evidence.sparse_flag != (arm == "C"):
        raise InputError(
            f"{plan} was built with the sparse flag {'on' if evidence.sparse_flag else 'off'}",
            f"--plan-{arm.lower()} needs build --{'sparse' if arm == 'C' else 'no-sparse'}.",
        )
    built_from = read_json(sidecar_path(plan)).get("onnx")
    if not isinstance(built_from, dict) or built_from.get("sha256") != sparse.sha256:
        raise InputError(f"{plan} was not built from {sparse.path} as it is now", "Build the plan again.")


def _read_measured(path: Path, sparse: OnnxFile) -> Dict[str, Any]:
    content = read_json(path)
    try:
        if content["models"]["sparse"]["sha256"] != sparse.sha256:
            raise InputError(f"{path} measured another file than {sparse.path}", "Run the benchmark again.")
        times = {
            arm: {name: float(time) for name, time in layers.items()} for arm, layers in content["layer_times"].items()
        }
        speedup = content["speedup"]["A_to_C"]
        return {
            "times": times,
            "speedup": Ratio(**speedup) if speedup else None,
            "noise": float(content["noise"]),
            "batch": int(content["latency_batch"]),
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        hint = "Write it with `benchmark --runtime tensorrt --out`."
        raise InputError(f"{path} holds no times of layers", hint) from error


def _without_engine(layer: ExplainedLayer, audited: AuditedLayer) -> ExplainedLayer:
    """No engine is opaque where there is none; what the shape lets expect can still be told."""
    if layer.reason is not Reason.OPAQUE:
        return layer
    reason = Reason.SMALL_CHANNELS if is_small(audited) else None
    return replace(layer, reason=reason, advice=reason.advice if reason else "")
