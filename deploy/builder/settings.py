"""Settings of an engine build."""

from __future__ import annotations

__all__ = ["HARDWARE_LEVELS", "BuildSettings"]

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from deploy.graph import Shapes
from deploy.machine import BACKENDS
from sparsegpt_core.errors import InputError

HARDWARE_LEVELS = ("ampere-plus", "same-compute-capability")
"""TensorRT's names of the hardware compatibility levels."""


@dataclass(frozen=True)
class BuildSettings:
    """How to build an engine.

    Raises:
        InputError: A value is out of its range.
    """

    sparse: bool = True
    """Allow sparse kernels: the builder's SPARSE_WEIGHTS flag."""
    backend: str = "auto"
    """``auto``, ``tensorrt`` or ``tensorrt-rtx``."""
    compute_capability: Optional[str] = None
    """The GPU that TensorRT-RTX builds for; None for this machine's, or 8.6 without a GPU."""
    shapes: Optional[Shapes] = None
    """Min, opt and max of dynamic dimensions, as ``parse_shapes`` reads them."""
    opt_level: Optional[int] = None
    """The builder's optimisation level, 0 to 5; None for its default."""
    timing_cache: Optional[Path] = None
    """A file of measured tactics that the build reads and extends."""
    tactic_sources: Optional[tuple[str, ...]] = None
    """Names of the kernel libraries; None for the default, empty for none."""
    workspace: Optional[int] = None
    """The most memory that a kernel may use, in bytes; None for no limit."""
    version_compatible: bool = False
    """Let later versions of TensorRT load the plan."""
    hardware: Optional[str] = None
    """Further GPUs that can run the plan, one of ``HARDWARE_LEVELS``; this excludes some sparse kernels."""

    def __post_init__(self) -> None:
        if self.backend not in {"auto", *BACKENDS}:
            raise InputError(f"unknown backend '{self.backend}'", f"Use auto, {' or '.join(BACKENDS)}.")
        if self.compute_capability and not re.fullmatch(r"[0-9]+\.[0-9]", self.compute_capability):
            raise InputError(
                f"cannot read the compute capability '{self.compute_capability}'",
                "Give it as MAJOR.MINOR, such as 8.6.",
            )
        if self.opt_level is not None and not 0 <= self.opt_level <= 5:
            raise InputError(
                f"the optimisation level {self.opt_level} is not one of 0 to 5",
                "Set `opt_level` to 0 to 5; TensorRT's default is 3.",
            )
        if self.workspace is not None and self.workspace <= 0:
            raise InputError(
                f"a workspace of {self.workspace} bytes is too small", "Leave out `workspace` for no limit."
            )
        if self.hardware is not None and self.hardware not in HARDWARE_LEVELS:
            raise InputError(
                f"unknown hardware compatibility '{self.hardware}'", f"Use {' or '.join(HARDWARE_LEVELS)}."
            )
