"""How an engine shall be built."""

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
"""Levels of hardware compatibility, as TensorRT calls them."""


@dataclass(frozen=True)
class BuildSettings:
    """How to build an engine.

    Args:
        sparse: Allow sparse kernels (the builder's SPARSE_WEIGHTS flag).
        backend: ``auto``, ``tensorrt`` or ``tensorrt-rtx``.
        compute_capability: What TensorRT-RTX builds for; None for this machine's GPU, or 8.6 where there is none.
        shapes: Min, opt and max of dynamic dimensions, as ``parse_shapes`` reads them.
        opt_level: The builder's effort, 0 to 5; None for its default.
        timing_cache: A file of measured tactics to begin from and add to.
        tactic_sources: Names of the libraries to take kernels from; None for the default, empty for none.
        workspace: The most memory a kernel may use, in bytes; None for all there is.
        version_compatible: Let later versions of TensorRT load the plan.
        hardware: Which GPUs the plan is for beside its own: ``ampere-plus``, ``same-compute-capability``, or None for
            no other; some kernels, sparse ones among them, are then left out.

    Raises:
        InputError: A value is out of its range.
    """

    sparse: bool = True
    backend: str = "auto"
    compute_capability: Optional[str] = None
    shapes: Optional[Shapes] = None
    opt_level: Optional[int] = None
    timing_cache: Optional[Path] = None
    tactic_sources: Optional[tuple[str, ...]] = None
    workspace: Optional[int] = None
    version_compatible: bool = False
    hardware: Optional[str] = None

    def __post_init__(self) -> None:
        if self.backend not in {"auto", *BACKENDS}:
            raise InputError(f"unknown backend '{self.backend}'", f"Use auto, {' or '.join(BACKENDS)}.")
        if self.compute_capability and not re.fullmatch(r"[0-9]+\.[0-9]", self.compute_capability):
            raise InputError(f"cannot read the compute capability '{self.compute_capability}'", "For example 8.6.")
        if self.opt_level is not None and not 0 <= self.opt_level <= 5:
            raise InputError(
                f"the optimisation level {self.opt_level} is not one of 0 to 5", "TensorRT's default is 3."
            )
        if self.workspace is not None and self.workspace <= 0:
            raise InputError(f"a workspace of {self.workspace} bytes is too small", "Leave it out to use all there is.")
        if self.hardware is not None and self.hardware not in HARDWARE_LEVELS:
            raise InputError(
                f"unknown hardware compatibility '{self.hardware}'", f"Use {' or '.join(HARDWARE_LEVELS)}."
            )
