"""The ways to prune that a sweep compares. Loads no torch."""

from __future__ import annotations

from typing import Any

from sparsegpt_core.patterns import Pattern
from sparsegpt_core.quality import Workflow, preset
from sparsegpt_core.settings import PruneSettings

__all__ = ["CNN_SPARSEGPT", "METHODS", "settings_for", "workflow_for"]

CNN_SPARSEGPT = "cnn-sparsegpt"

METHODS = {
    "magnitude": "the smallest weights go; no image is looked at",
    CNN_SPARSEGPT: "the research project's SparseGPT, wrong axis and wrong update included: for the record only",
    "sparsegpt": "SparseGPT as published",
    "balanced": "--quality balanced",
    "best": "--quality best",
}
"""The methods in the order in which tables and pictures show them, and what they are."""

_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "magnitude": ("balanced", {"method": "magnitude"}),
    "sparsegpt": ("fast", {"damping": 0.01, "bias": False}),
    "balanced": ("balanced", {}),
    "best": ("best", {}),
}
_PERMUTE_SECONDS = 86400.0  # a result must not depend on how busy the machine was


def settings_for(method: str, pattern: Pattern) -> PruneSettings:
    """Return the settings of a method other than the research project's."""
    quality, changed = _PRESETS[method]
    return preset(quality, pattern=pattern, **changed).settings


def workflow_for(method: str) -> Workflow:
    """Return what the method does around the pruning itself."""
    quality, _ = _PRESETS[method]
    return preset(quality, permute_seconds=_PERMUTE_SECONDS).workflow
