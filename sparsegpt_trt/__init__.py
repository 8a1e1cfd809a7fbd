"""The product under its own name: everything that a script needs, from one import.

May import every other package. Their names, such as ``export`` and ``deploy``, are common ones. Importing this package
first finds the right ones even where the working directory or an older entry of ``sys.path`` has others.

>>> import sparsegpt_trt
>>> str(sparsegpt_trt.PruneSettings(pattern=sparsegpt_trt.parse_pattern("1:4")).pattern)
'1:4'
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.benchmark import BenchmarkResult, EngineSettings, benchmark_engines, benchmark_onnx
    from deploy.builder import BuildResult, BuildSettings, build_engine
    from deploy.predict import predict
    from export.audit import AuditResult, audit_model, load_model
    from export.exporter import ExportedFile, Exporter, ExportSettings
    from export.importing import OnnxNetwork, prune_onnx
    from export.writing import export_model, save_model
    from sparsegpt_core import (
        NM,
        LayerChoices,
        ModelShape,
        PruneResult,
        PruneSettings,
        SparseGPTError,
        Unstructured,
        build_model,
        load_checkpoint,
        parse_pattern,
        preset,
        prune_model,
        save_checkpoint,
    )

__all__ = [
    "NM",
    "AuditResult",
    "BenchmarkResult",
    "BuildResult",
    "BuildSettings",
    "EngineSettings",
    "ExportSettings",
    "ExportedFile",
    "Exporter",
    "LayerChoices",
    "ModelShape",
    "OnnxNetwork",
    "PruneResult",
    "PruneSettings",
    "SparseGPTError",
    "Unstructured",
    "audit_model",
    "benchmark_engines",
    "benchmark_onnx",
    "build_engine",
    "build_model",
    "export_model",
    "load_checkpoint",
    "load_model",
    "parse_pattern",
    "predict",
    "preset",
    "prune_model",
    "prune_onnx",
    "save_checkpoint",
    "save_model",
]

_HOMES = {
    "deploy.benchmark": ("BenchmarkResult", "EngineSettings", "benchmark_engines", "benchmark_onnx"),
    "deploy.builder": ("BuildResult", "BuildSettings", "build_engine"),
    "deploy.predict": ("predict",),
    "export.audit": ("AuditResult", "audit_model", "load_model"),
    "export.exporter": ("ExportSettings", "ExportedFile", "Exporter"),
    "export.importing": ("OnnxNetwork", "prune_onnx"),
    "export.writing": ("export_model", "save_model"),
}
"""The module of each name; all other names are those of ``sparsegpt_core``."""

_ROOT = Path(__file__).parent.parent


def main() -> int:
    """Run the command line with the process's arguments; return the exit status."""
    from sparsegpt_cli.app import main as run

    return run()


def __getattr__(name: str) -> Any:
    """Load the module of a name on its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "sparsegpt_core")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _find_own_packages() -> None:
    """Import the packages next to this one; their modules then come from there too.

    Raises:
        ImportError: The process has already imported another package of that name.
    """
    sys.path.insert(0, str(_ROOT))
    try:
        for name in ("sparsegpt_core", "calibration", "export", "deploy", "sparsegpt_cli"):
            module: Any = importlib.import_module(name)
            if Path(module.__file__ or "").parent != _ROOT / name:
                found = module.__file__ or next(iter(module.__path__))
                raise ImportError(
                    f"{found} hides the package '{name}' of sparsegpt-trt: import sparsegpt_trt before it, or rename it"
                )
    finally:
        sys.path.remove(str(_ROOT))


_find_own_packages()
