"""Pruning: prune a network with SparseGPT to a pattern that sparse tensor cores accept.

May import nothing of the other packages. Names load their module on first use, so that ``import sparsegpt_core`` is
cheap and loads no torch.

>>> from sparsegpt_core import PruneSettings, parse_pattern
>>> str(PruneSettings(pattern=parse_pattern("2:4")).pattern)
'2:4'
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
    from sparsegpt_core.errors import (
        CheckFailedError,
        DataError,
        InputError,
        MissingDependencyError,
        ModelError,
        NumericsError,
        SparseGPTError,
    )
    from sparsegpt_core.patterns import NM, Unstructured, parse_pattern
    from sparsegpt_core.pruning import (
        LayerChoices,
        LayerResult,
        PruneResult,
        global_quotas,
        permute_model,
        prune_model,
    )
    from sparsegpt_core.quality import Quality, Workflow, preset
    from sparsegpt_core.settings import PruneSettings
    from sparsegpt_core.zoo import ModelShape, build_model

__version__ = "0.1.0"

__all__ = [
    "NM",
    "CheckFailedError",
    "DataError",
    "InputError",
    "LayerChoices",
    "LayerResult",
    "MissingDependencyError",
    "ModelError",
    "ModelShape",
    "NumericsError",
    "PruneResult",
    "PruneSettings",
    "Quality",
    "SparseGPTError",
    "Unstructured",
    "Workflow",
    "build_model",
    "global_quotas",
    "load_checkpoint",
    "parse_pattern",
    "permute_model",
    "preset",
    "prune_model",
    "save_checkpoint",
]

_HOMES = {
    "checkpoints": ("load_checkpoint", "save_checkpoint"),
    "patterns": ("NM", "Unstructured", "parse_pattern"),
    "pruning": ("LayerChoices", "LayerResult", "PruneResult", "global_quotas", "permute_model", "prune_model"),
    "quality": ("Quality", "Workflow", "preset"),
    "settings": ("PruneSettings",),
    "zoo": ("ModelShape", "build_model"),
}
"""The module of each name; names that are not here are errors."""

# Messages reach whoever configures logging; without this, Python would print them beside the command's own.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Load the module of a name on its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "errors")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})
