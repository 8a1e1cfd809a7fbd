"""The pruning methods that a sweep compares. Loads no torch."""

from __future__ import annotations

from typing import Any

from sparsegpt_core.patterns import Pattern
from sparsegpt_core.quality import Workflow, preset
from sparsegpt_core.settings import PruneSettings

__all__ = ["CNN_SPARSEGPT", "METHODS", "settings_for", "workflow_for"]

CNN_SPARSEGPT = "cnn-sparsegpt"

METHODS = {
    "magnitude": "the smallest weights become zero; needs no images",
    CNN_SPARSEGPT: "the research project's SparseGPT with its wrong axis and wrong update, for comparison only",
    "sparsegpt": "SparseGPT as published",
    "balanced": "--quality balanced",
    "best": "--quality best",
}
"""The methods with their descriptions, in the order of tables and pictures."""

_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "magnitude": ("balanced", {"method": "magnitude"}),
    "sparsegpt": ("fast", {"damping": 0.01, "bias": False}),
    "balanced": ("balanced", {}),
    "best": ("best", {}),
}
_PERMUTE_SECONDS = 86400.0  # a result must not depend on how busy the machine is


def settings_for(method: str, pattern: Pattern) -> PruneSettings:
    """Return the settings of a method other than the research project's."""
    quality, changed = _PRESETS[method]
    return preset(quality, pattern=pattern, **changed).settings


def workflow_for(method: str) -> Workflow:
    """Return the steps of a method before and after pruning."""
    quality, _ = _PRESETS[method]
    return preset(quality, permute_seconds=_PERMUTE_SECONDS).workflow
