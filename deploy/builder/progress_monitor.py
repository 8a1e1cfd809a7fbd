"""Reports a build's progress and ends it early, through TensorRT's progress monitor."""

from __future__ import annotations

__all__ = ["PERCENT", "build_monitor"]

import threading
from types import ModuleType
from typing import Any, Dict, Optional, Tuple

from sparsegpt_core.progress import Progress

PERCENT = 100
"""The total of the stage ``build``."""


def build_monitor(trt: ModuleType, progress: Progress, stopped: threading.Event) -> Optional[Any]:
    """Return a progress monitor for a builder's configuration; None before TensorRT 10, which has none.

    Args:
        trt: The builder's module.
        progress: Receives the stage ``build`` from 1 to 99 percent.
        stopped: Ends the build at its next step when it is set.
    """
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: Dict[str, Tuple[Optional[str], int, int]] = {}
            """Parent, number of steps and finished steps of each running phase."""
            self.shown = 0

        def phase_start(self, phase_name: str, parent_phase: Optional[str], num_steps: int) -> None:
            self.phases[phase_name] = (parent_phase, num_steps, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            parent, steps, _ = self.phases[phase_name]
            self.phases[phase_name] = (parent, steps, step + 1)
            percent = min(int(PERCENT * self.finished(phase_name)), PERCENT - 1)
            if percent > self.shown and not stopped.is_set():
                self.shown = percent
                progress("build", percent, PERCENT)
            return not stopped.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

        def finished(self, phase: Optional[str]) -> float:
            """The finished share of the build: a phase is one step of its parent."""
            share = 0.0
            while phase in self.phases:
                phase, steps, done = self.phases[phase]
                share = min((done + share) / steps, 1.0)
            return share

    return Monitor()
