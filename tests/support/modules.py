"""The six packages: their files, their modules and their rooms."""

from __future__ import annotations

from pathlib import Path

from tests.support.paths import ROOT

PACKAGES = ("sparsegpt_core", "calibration", "export", "deploy", "sparsegpt_cli", "sparsegpt_trt")
FILES = {path: path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
ROOMS = sorted(".".join(path.parent.parts) for path in FILES.values() if path.name == "__init__.py")


def module_of(path: Path) -> str:
    """The module of a file, given relative to the repository."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")
