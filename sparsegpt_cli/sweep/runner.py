"""A sweep from its grid to its tables and pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from deploy.machine import describe_environment
from sparsegpt_cli.messages import Messages
from sparsegpt_cli.resume import locked
from sparsegpt_cli.sweep.cell import Task, compute
from sparsegpt_cli.sweep.cell_store import CellStore, Record
from sparsegpt_cli.sweep.checkpoints import Subject, load_subject, open_subject
from sparsegpt_cli.sweep.evaluation import Evaluator
from sparsegpt_cli.sweep.grid import Cell, Grid, checkpoint_name
from sparsegpt_cli.sweep.pictures import draw
from sparsegpt_cli.sweep.process_pool import each_in_processes
from sparsegpt_cli.sweep.tables import layer_rows, result_rows, write_tables
from sparsegpt_core import __version__
from sparsegpt_core.errors import DataError, InputError
from sparsegpt_core.execution import available_memory
from sparsegpt_core.files import remove_abandoned, write_json
from sparsegpt_core.progress import Progress
from sparsegpt_core.torchrun import world_size

__all__ = ["Swept", "sweep"]

_DIED = {"error": "its process died, perhaps for want of memory", "hint": "Run again with fewer --jobs."}
_MEMORY_SHARE = 0.8  # of what is free, for all jobs together


@dataclass(frozen=True)
class Swept:
    """What became of a sweep: a row for each finished cell, the files, and why each other cell failed."""

    rows: list[dict[str, Any]]
    files: list[Path]
    failed: list[dict[str, str]]
    computed: int

    def to_json(self) -> dict[str, Any]:
        """Return what ``sweep --json`` prints, without the folder."""
        return {
            "cells": self.rows,
            "computed": self.computed,
            "failed": self.failed,
            "files": [str(path) for path in self.files],
        }


def sweep(
    grid: Grid, judge: Evaluator, out: Path, messages: Messages, *, jobs: int = 1, memory_limit: int | None = None
) -> Swept:
    """Compute the cells that are not there yet, and write tables and pictures of all.

    Args:
        grid: The cells.
        judge: On what networks are judged.
        out: The folder. Every cell is in it as soon as it is finished.
        messages: Told of every cell.
        jobs: Processes at a time; they share PyTorch's threads.
        memory_limit: Bytes for each of them; by default they share most of what is free.

    Raises:
        InputError: A checkpoint, the data or the folder cannot be used, or another sweep is in it.
    """
    if world_size() > 1:
        raise InputError("sweep runs on one machine and shares its cores itself", "Start it without torchrun.")
    prepared = _Sweep(grid, judge, out, messages, jobs, memory_limit)
    with locked(out, "sweep"):
        return prepared.run()


class _Sweep:
    """One run: its tasks, and where it keeps things."""

    def __init__(
        self, grid: Grid, judge: Evaluator, out: Path, messages: Messages, jobs: int, memory_limit: int | None
    ) -> None:
        self._judge, self._out, self._messages, self._jobs = judge, out, messages, jobs
        self._store = CellStore(out / "cells")
        self._dense = out / "dense"
        self._grid = grid
        subjects = {
            checkpoint_name(path): open_subject(path, judge, grid.factories, messages) for path in grid.checkpoints
        }
        _check_samples(grid, subjects.values())
        if memory_limit is None and jobs > 1:
            memory_limit = int(_MEMORY_SHARE * available_memory(torch.device(judge.device)) / jobs)
        threads = max(1, torch.get_num_threads() // jobs)
        self._tasks = [
            Task(cell, subjects[cell.checkpoint], judge, self._dense, threads, memory_limit) for cell in grid.cells()
        ]
        self._records: dict[Cell, Record] = {}

    def run(self) -> Swept:
        for folder in ("cells", "dense", "pictures"):
            remove_abandoned(self._out / folder)  # a killed sweep may have been writing there
        todo = self._find()
        if todo:
            write_json(self._out / "sweep.json", self._about())
            self._compute(todo)
        finished = [(task, self._records[task.cell]) for task in self._tasks if "result" in self._records[task.cell]]
        rows, layers = result_rows(finished), layer_rows(finished)
        files = [*write_tables(self._out, rows, layers), *draw(self._out / "pictures", rows, layers)]
        failed = [
            {"cell": str(task.cell), "error": record["error"], "hint": record["hint"]}
            for task in self._tasks
            for record in [self._records[task.cell]]
            if "error" in record
        ]
        return Swept(rows, files, failed, len(todo))

    def _find(self) -> list[Task]:
        """Read the cells that are there; return the others. Those that failed are tried again."""
        for task in self._tasks:
            record = self._store.read(task.cell.key, task.identity)
            if record and "result" in record:
                self._records[task.cell] = record
        for path in self._store.damaged:
            self._messages.warn(f"{path} is damaged: that cell is computed again")
        todo = [task for task in self._tasks if task.cell not in self._records]
        self._messages.say(f"{len(self._tasks)} cells, {len(self._records)} of them finished")
        changed = {name for task in todo for name in self._store.changed(task.cell.key, task.identity)}
        if changed:
            names = ", ".join(sorted(changed))
            self._messages.say(f"some are there of other settings ({names}): those stay, and are computed anew beside")
        return todo

    def _compute(self, todo: Sequence[Task]) -> None:
        with self._messages.progress() as progress:
            self._judge_dense({task.subject.name: task.subject for task in todo}.values(), progress)
            done = len(self._tasks) - len(todo)
            progress("sweep", done, len(self._tasks))
            with contextlib.closing(each_in_processes(compute, todo, self._jobs)) as outcomes:
                for task, outcome in outcomes:
                    outcome = outcome or _DIED
                    self._store.write(task.cell.key, task.identity, outcome)
                    self._records[task.cell] = outcome
                    self._messages.say(f"{task.cell}: {_brief(outcome)}")
                    done += 1
                    progress("sweep", done, len(self._tasks))

    def _judge_dense(self, subjects: Iterable[Subject], progress: Progress) -> None:
        """Have every network's dense outputs at hand."""
        for subject in subjects:
            if subject.read_reference(self._dense) is not None:
                continue
            if subject.reference(self._dense).exists():
                self._messages.warn(f"{subject.reference(self._dense)} is damaged: dense outputs are computed again")
            subject.keep_reference(self._judge, self._dense, progress)
        load_subject.cache_clear()  # memory is the workers' from here on

    def _about(self) -> dict[str, Any]:
        grid = {name: [str(value) for value in values] for name, values in asdict(self._grid).items()}
        return {"tool_version": __version__, "grid": grid, "jobs": self._jobs, "environment": describe_environment()}


def _check_samples(grid: Grid, subjects: Iterable[Subject]) -> None:
    most = max(grid.samples)
    for subject in subjects:
        if most > subject.training_images:
            raise DataError(
                f"{most} calibration images are asked for, there are {subject.training_images}", "Lower --samples."
            )


def _brief(outcome: Mapping[str, Any]) -> str:
    """Say in a line what came of a cell."""
    if "error" in outcome:
        return f"failed: {outcome['error']}"
    result = outcome["result"]
    found = f"{result['disagreement']:.2f} % of another class"
    if result["difference"]:
        found = f"top-1 {result['sparse']['top1']:.2f} % ({result['difference']['value']:+.2f})"
    return f"{found} in {result['seconds']:.1f} s"
