"""Explains a sparse ONNX file from its plans and measured times, where they exist."""

from __future__ import annotations

from collections.abc import Mapping
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
from deploy.measure import LayerTimes, Ratio
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import read_json, sidecar_path
from sparsegpt_core.reasons import Reason

if TYPE_CHECKING:
    from export.audit import AuditedLayer

__all__ = ["explain_plans"]

_NO_ENGINES = "Unknown without engines: which kernels the builder chooses. Give `plan_c`, and `plan_b` to compare with."
_NO_GPU = "Without a GPU the engine inspector cannot run: only the build log says which kernels are used."
_NO_TIMES = "Unknown without times: what each layer gains. Give `times`, the JSON of `benchmark --out`."


def explain_plans(
    sparse: Path, plan_b: Optional[Path] = None, plan_c: Optional[Path] = None, times: Optional[Path] = None
) -> Tuple[Explanation, List[str]]:
    """Explain a sparse ONNX file with the plans and times that are given.

    Args:
        sparse: The ONNX file.
        plan_b: Its engine with the sparse flag off.
        plan_c: Its engine with the sparse flag on.
        times: The JSON of ``benchmark --out``, with layer times, speed-up and noise.

    Returns:
        The explanation, and a sentence for each unknown fact.

    Raises:
        InputError: A file is missing or damaged, or a plan does not fit the file or the arm.
        ModelError: This TensorRT or this GPU cannot load a plan.
        MissingDependencyError: onnx, the backend or PyCUDA is not installed.

    Example:
        >>> explanation, unknown = explain_plans(Path("sparse.onnx"), plan_c=Path("sparse.plan"))  # doctest: +SKIP
        >>> explanation.verdict  # doctest: +SKIP
        'not measured; 13 of 20 eligible layers use sparse kernels'
    """
    file = OnnxFile(sparse)
    audit, has_sparse_kernels = file.audit, file.graph.has_sparse_kernels
    found = _read_times(times, file) if times else {}
    inspected = find_gpu() is not None
    evidence: Dict[str, Evidence] = {}
    for arm, plan in (("B", plan_b), ("C", plan_c)):
        layers = found.get("layers", {}).get(arm, LayerTimes({}, {}))
        if plan:
            evidence[arm] = evidence_of_plan(plan, has_sparse_kernels, layers, inspected)
            _check_plan(arm, plan, evidence[arm], file)
        else:
            evidence[arm] = Evidence(arm == "C", has_sparse_kernels, times=layers.medians_ms, noise=layers.noise)
    explanation = explain(
        audit, evidence["C"], evidence["B"], found.get("speedup"), found.get("noise", 0.0), found.get("batch")
    )
    if plan_c is None:
        explanation = replace(explanation, layers=tuple(map(_without_engine, explanation.layers, audit.layers)))
    known = {_NO_ENGINES: plan_c is not None, _NO_GPU: inspected or plan_c is None, _NO_TIMES: times is not None}
    return explanation, [sentence for sentence, is_known in known.items() if not is_known]


def _check_plan(arm: str, plan: Path, evidence: Evidence, sparse: OnnxFile) -> None:
    if evidence.sparse_flag != (arm == "C"):
        raise InputError(
            f"{plan} was built with the sparse flag {'on' if evidence.sparse_flag else 'off'}",
            f"Build the plan for `plan_{arm.lower()}` with `sparse={arm == 'C'}`.",
        )
    built_from = read_json(sidecar_path(plan)).get("onnx")
    if not isinstance(built_from, dict) or built_from.get("sha256") != sparse.sha256:
        raise InputError(f"{plan} was not built from {sparse.path} as it is now", "Build the plan again.")


def _read_times(path: Path, sparse: OnnxFile) -> Dict[str, Any]:
    content = read_json(path)
    try:
        if content["models"]["sparse"]["sha256"] != sparse.sha256:
            raise InputError(f"{path} measured another file than {sparse.path}", "Run the benchmark again.")
        layers = {
            arm: LayerTimes(_floats(times), _floats(content["layer_noise"][arm]))
            for arm, times in content["layer_times"].items()
        }
        speedup = content["speedup"]["A_to_C"]
        return {
            "layers": layers,
            "speedup": Ratio(**speedup) if speedup else None,
            "noise": float(content["noise"]),
            "batch": int(content["latency_batch"]),
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        hint = "Write it with `benchmark --runtime tensorrt --out`."
        raise InputError(f"{path} contains no layer times", hint) from error


def _floats(values: Mapping[str, Any]) -> Dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _without_engine(layer: ExplainedLayer, audited: AuditedLayer) -> ExplainedLayer:
    """Replace the reason OPAQUE, which needs an engine, by the reason that follows from the layer's shape."""
    if layer.reason is not Reason.OPAQUE:
        return layer
    reason = Reason.SMALL_CHANNELS if is_small(audited) else None
    return replace(layer, reason=reason, advice=reason.advice if reason else "")
