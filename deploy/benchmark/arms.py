"""The three arms of a comparison: A dense weights, B sparse weights on dense kernels, C on sparse kernels."""

from __future__ import annotations

__all__ = ["ARMS", "Arms", "open_arms"]

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional

from deploy.builder import BuildResult, BuildSettings, build_engine
from deploy.graph import OnnxFile
from deploy.machine import find_backend
from deploy.sessions import TensorRTSession
from sparsegpt_core.errors import InputError
from sparsegpt_core.progress import Progress, silent

ARMS = {"A": ("dense", False), "B": ("sparse", False), "C": ("sparse", True)}
"""Each arm's weights, and whether the builder may use sparse kernels."""


@dataclass(frozen=True)
class Arms:
    """The open engines of the arms ``A``, ``B`` and ``C``."""

    builds: Mapping[str, List[BuildResult]]
    """The builds of each arm."""
    sessions: Mapping[str, List[TensorRTSession]]
    """The open session of each build."""


@contextlib.contextmanager
def open_arms(
    dense: OnnxFile,
    sparse: OnnxFile,
    settings: BuildSettings,
    rebuilds: int = 1,
    plans: Optional[Path] = None,
    progress: Progress = silent,
) -> Iterator[Arms]:
    """Build all engines, then open them.

    The builder's tactic choice is noisy. The arms of one rebuild share a timing cache, so common layers get the same
    kernels; the next rebuild has a new cache and times all tactics again.

    Args:
        dense: The dense ONNX file.
        sparse: Its pruned version.
        settings: Settings of all builds. The arms set ``sparse`` and ``timing_cache``.
        rebuilds: Builds of each engine.
        plans: The folder for ``A1.plan``, ``B1.plan`` and so on; None to keep no plans.
        progress: Receives the stage ``engines``, once per build.

    Raises:
        InputError: A file or a setting does not fit, or the GPU fails.
        ModelError: An engine cannot be built or loaded.
        MissingDependencyError: No backend, Polygraphy or PyCUDA is installed.
    """
    if rebuilds < 1:
        raise InputError(f"cannot build engines {rebuilds} times", "Set `rebuilds` to at least 1.")
    with contextlib.ExitStack() as cleanup:
        scratch = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="sparsegpt-trt.")))
        files, folder = {"dense": dense, "sparse": sparse}, plans or scratch
        builds: Dict[str, List[BuildResult]] = {arm: [] for arm in ARMS}
        keeps_cache = not find_backend(settings.backend).is_rtx
        progress("engines", 0, rebuilds * len(ARMS))
        for number in range(1, rebuilds + 1):
            cache = scratch / f"{number}.cache" if keeps_cache else None
            for arm, (weights, flag) in ARMS.items():
                own = replace(settings, sparse=flag, timing_cache=cache)
                builds[arm].append(build_engine(files[weights], folder / f"{arm}{number}.plan", own))
                progress("engines", sum(map(len, builds.values())), rebuilds * len(ARMS))
        sessions = {
            arm: [cleanup.enter_context(TensorRTSession(made.plan)) for made in group] for arm, group in builds.items()
        }
        yield Arms(builds, sessions)
