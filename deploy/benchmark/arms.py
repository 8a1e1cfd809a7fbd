"""The three arms of a comparison: A dense weights, B sparse weights on dense kernels, C on sparse kernels."""

from __future__ import annotations

__all__ = ["ARMS", "Builds", "build_arms", "open_engines"]

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Optional

from deploy.builder import BuildResult, BuildSettings, build_engine
from deploy.graph import OnnxFile
from deploy.machine import find_backend
from deploy.sessions import TensorRTSession
from sparsegpt_core.progress import Progress, silent

ARMS = {"A": ("dense", False), "B": ("sparse", False), "C": ("sparse", True)}
"""Each arm's weights, and whether the builder may use sparse kernels."""


Builds = Mapping[str, Sequence[BuildResult]]
"""The builds of each arm, one for each rebuild."""


@contextlib.contextmanager
def build_arms(
    dense: OnnxFile,
    sparse: OnnxFile,
    settings: BuildSettings,
    rebuilds: int = 1,
    plans: Optional[Path] = None,
    progress: Progress = silent,
) -> Iterator[Builds]:
    """Build all engines. Their plans are on disk inside the ``with``.

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
        ModelError: An engine cannot be built.
        MissingDependencyError: No backend or no Polygraphy is installed.
    """
    with tempfile.TemporaryDirectory(prefix="sparsegpt-trt.") as name:
        scratch, files = Path(name), {"dense": dense, "sparse": sparse}
        builds: Dict[str, List[BuildResult]] = {arm: [] for arm in ARMS}
        keeps_cache = not find_backend(settings.backend).is_rtx
        progress("engines", 0, rebuilds * len(ARMS))
        for number in range(1, rebuilds + 1):
            cache = scratch / f"{number}.cache" if keeps_cache else None
            for arm, (weights, flag) in ARMS.items():
                own = replace(settings, sparse=flag, timing_cache=cache)
                builds[arm].append(build_engine(files[weights], (plans or scratch) / f"{arm}{number}.plan", own))
                progress("engines", sum(map(len, builds.values())), rebuilds * len(ARMS))
        yield builds


@contextlib.contextmanager
def open_engines(builds: Builds, rebuilds: Iterable[int]) -> Iterator[Dict[str, List[TensorRTSession]]]:
    """Open the engines of some rebuilds, counted from 0; close them at the end of the ``with``.

    Raises:
        InputError: The GPU fails, or its memory is full.
        ModelError: An engine cannot be loaded.
        MissingDependencyError: PyCUDA is not installed.
    """
    with contextlib.ExitStack() as cleanup:
        yield {
            arm: [cleanup.enter_context(TensorRTSession(group[rebuild].plan)) for rebuild in rebuilds]
            for arm, group in builds.items()
        }
