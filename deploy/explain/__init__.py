"""Explains for each layer whether a sparse kernel runs it, what it gains, and why not.

May import ``measure``, ``sessions``, ``builder``, ``graph``, ``machine`` and below.
"""

from deploy.explain.evidence import Evidence
from deploy.explain.explanation import ExplainedLayer, Explanation
from deploy.explain.from_plans import explain_plans
from deploy.explain.layer_export import export_layers, exported_names
from deploy.explain.layer_reasons import explain
from deploy.explain.limits import ceiling
from deploy.explain.plan_inspection import evidence_of_build

__all__ = [
    "Evidence",
    "ExplainedLayer",
    "Explanation",
    "ceiling",
    "evidence_of_build",
    "explain",
    "explain_plans",
    "export_layers",
    "exported_names",
]
