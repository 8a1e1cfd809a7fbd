"""Runs a sweep: computes the cells of a grid, and writes tables and pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from deploy.machine import describe_environment
from sparsegpt_cli.messages import Messages
from sparsegpt_cli.process_pool import each_in_processes
from sparsegpt_cli.resume import locked
from sparsegpt_cli.sweep.cell import Task, compute
from sparsegpt_cli.sweep.cell_store import CellStore, Record
from sparsegpt_cli.sweep.checkpoints import load_network, open_checkpoint
from sparsegpt_cli.sweep.evaluation import Evaluator
from sparsegpt_cli.sweep.executors import each_in_executor
from sparsegpt_cli.sweep.grid import Cell, Grid, checkpoint_name
from sparsegpt_cli.sweep.pictures import draw
from sparsegpt_cli.sweep.tables import layer_rows, result_rows, write_tables
from sparsegpt_core import __version__
from sparsegpt_core.errors import DataError, InputError, first_line
from sparsegpt_core.execution import available_memory
from sparsegpt_core.files import remove_abandoned, write_json
from sparsegpt_core.progress import Progress
from sparsegpt_core.torchrun import world_size

__all__ = ["Swept", "sweep"]

Outcomes = Generator[tuple[Task, Record | Exception | None], None, None]
"""Cells with what came of them: an exception of the worker, or None, if there is no record."""

_DIED = {"error": "its process died, perhaps out of memory", "hint": "Run again with fewer --jobs."}
_RUN_AGAIN = "Run again: finished cells are kept."
_MEMORY_SHARE = 0.8  # of the free memory, for all jobs together


@dataclass(frozen=True)
class Swept:
    """The results of a sweep."""

    rows: list[dict[str, Any]]
    """A row for each finished cell."""
    files: list[Path]
    """The tables and pictures."""
    failed: list[dict[str, str]]
    """``cell``, ``error`` and ``hint`` of each cell that failed."""
    warnings: list[str]
    """What the finished cells warn about, each after its cell's name."""
    computed: int
    """The number of cells that this run computed."""

    def to_json(self) -> dict[str, Any]:
        """Return what ``sweep --json`` prints, without the folder."""
        return {
            "cells": self.rows,
            "computed": self.computed,
            "failed": self.failed,
            "files": [str(path) for path in self.files],
            "warnings": self.warnings,
        }


def sweep(
    grid: Grid,
    evaluator: Evaluator,
    out: Path,
    messages: Messages,
    *,
    jobs: int = 1,
    memory_limit: int | None = None,
    executor: Executor | None = None,
) -> Swept:
    """Compute the cells that are not finished, and write tables and pictures of all.

    Args:
        grid: The cells.
        evaluator: The evaluation images.
        out: The folder. Every cell is written there as soon as it is finished.
        messages: Takes a message for every cell, and progress.
        jobs: Processes at the same time; they share PyTorch's threads.
        memory_limit: Bytes for each process; by default they share most of the free memory.
        executor: Computes the cells in place of ``jobs`` processes, also on other machines. Its workers need this
            version of the package, and the files of the sweep, ``out`` too, at the same paths.

    Raises:
        InputError: A checkpoint, the data or the folder cannot be used, or another sweep writes to it.

    Example:
        >>> from sparsegpt_cli.jobs.datasets import DataSource
        >>> from sparsegpt_cli.messages import SILENT
        >>> grid = Grid([Path("net.safetensors")], ["magnitude", "balanced"], ["2:4"], samples=[256], seeds=[0])
        >>> swept = sweep(grid, Evaluator(DataSource("digits")), Path("out"), SILENT)  # doctest: +SKIP
        >>> [row["difference"] for row in swept.rows]  # doctest: +SKIP
        [-12.5, -0.33]
    """
    if world_size() > 1:
        raise InputError("sweep runs on one machine and shares its cores itself", "Start it without torchrun.")
    threads = max(1, torch.get_num_threads() // jobs) if executor is None else None
    if memory_limit is None and jobs > 1:
        memory_limit = int(_MEMORY_SHARE * available_memory(torch.device(evaluator.device)) / jobs)
    tasks = _tasks(grid, evaluator, out / "dense", messages, threads, memory_limit)
    with locked(out, "sweep"):
        for folder in ("cells", "dense", "pictures"):
            remove_abandoned(out / folder)  # a killed sweep may have been writing there
        store = CellStore(out / "cells")
        records = _read_finished(tasks, store, messages)
        todo = [task for task in tasks if task.cell not in records]
        if todo:
            workers = {"jobs": jobs} if executor is None else {"executor": type(executor).__name__}
            write_json(out / "sweep.json", _describe(grid, workers))
            with messages.progress() as progress:
                _write_dense_outputs(todo, messages, progress)
                outcomes: Outcomes = (
                    each_in_executor(compute, todo, executor) if executor else each_in_processes(compute, todo, jobs)
                )
                records |= _keep(outcomes, len(records), len(tasks), store, messages, progress)
        finished = [(task, records[task.cell]) for task in tasks if "result" in records[task.cell]]
        rows, layers = result_rows(finished), layer_rows(finished)
        files = [*write_tables(out, rows, layers), *draw(out / "pictures", rows, layers)]
    failed = [
        {"cell": str(cell), "error": record["error"], "hint": record["hint"]}
        for cell, record in ((task.cell, records[task.cell]) for task in tasks)
        if "error" in record
    ]
    warnings = [f"{task.cell}: {warning}" for task, record in finished for warning in record["result"]["warnings"]]
    return Swept(rows, files, failed, warnings, len(todo))


def _tasks(
    grid: Grid,
    evaluator: Evaluator,
    dense_outputs: Path,
    messages: Messages,
    threads: int | None,
    memory_limit: int | None,
) -> list[Task]:
    """Open all checkpoints, and return a task for each cell."""
    checkpoints = {
        checkpoint_name(path): open_checkpoint(path, evaluator, grid.factories, messages) for path in grid.checkpoints
    }
    for checkpoint in checkpoints.values():
        if max(grid.samples) > checkpoint.training_images:
            raise DataError(
                f"{max(grid.samples)} calibration images are asked for, there are {checkpoint.training_images}",
                "Lower --samples.",
            )
    return [
        Task(cell, checkpoints[cell.checkpoint], evaluator, dense_outputs, Path.cwd(), threads, memory_limit)
        for cell in grid.cells()
    ]


def _read_finished(tasks: Sequence[Task], store: CellStore, messages: Messages) -> dict[Cell, Record]:
    """Read the results of finished cells. Cells that failed are computed again."""
    found = {task.cell: store.read(task.cell.key, task.identity) for task in tasks}
    records = {cell: record for cell, record in found.items() if record and "result" in record}
    for path in store.damaged:
        messages.warn(f"{path} is damaged: that cell is computed again")
    messages.say(f"{len(tasks)} cells, {len(records)} of them finished")
    todo = [task for task in tasks if task.cell not in records]
    changed = {name for task in todo for name in store.changed(task.cell.key, task.identity)}
    if changed:
        messages.say(
            f"results with other settings ({', '.join(sorted(changed))}) exist; they are kept, and the new ones are "
            "computed as well"
        )
    return records


def _write_dense_outputs(tasks: Sequence[Task], messages: Messages, progress: Progress) -> None:
    """Check every checkpoint against its data, and write the dense outputs where there are none."""
    for task in {task.checkpoint.name: task for task in tasks}.values():
        checkpoint, folder = task.checkpoint, task.dense_outputs
        checkpoint.check(task.evaluator, messages)
        if checkpoint.read_dense_outputs(folder) is None:
            path = checkpoint.dense_outputs_path(folder)
            if path.exists():
                messages.warn(f"{path} is damaged: dense outputs are computed again")
            checkpoint.write_dense_outputs(task.evaluator, folder, progress)
    load_network.cache_clear()  # leaves the memory to the workers


def _keep(
    outcomes: Outcomes, done: int, cells: int, store: CellStore, messages: Messages, progress: Progress
) -> dict[Cell, Record]:
    """Write each cell as soon as it is finished; return the records."""
    records: dict[Cell, Record] = {}
    progress("sweep", done, cells)
    with contextlib.closing(outcomes):
        for task, outcome in outcomes:
            record = _record(outcome)
            store.write(task.cell.key, task.identity, record)
            records[task.cell] = record
            messages.say(f"{task.cell}: {_summary(record)}")
            progress("sweep", done + len(records), cells)
    return records


def _record(outcome: Record | Exception | None) -> Record:
    """Return what is kept of a cell's outcome."""
    if isinstance(outcome, Exception):
        return {"error": f"its worker failed: {first_line(outcome)}", "hint": _RUN_AGAIN}
    return outcome or _DIED


def _describe(grid: Grid, workers: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``sweep.json``."""
    axes = {name: [str(value) for value in values] for name, values in asdict(grid).items()}
    return {"tool_version": __version__, "grid": axes, **workers, "environment": describe_environment()}


def _summary(record: Record) -> str:
    """Return one line about a cell's outcome."""
    if "error" in record:
        return f"failed: {record['error']}"
    result = record["result"]
    if result.get("metrics"):
        name, figure = next(iter(result["metrics"].items()))
        dense, sparse = (figure["versions"][version]["value"] for version in ("dense", "sparse"))
        change = f"{name} {sparse:.4g} ({sparse - dense:+.3g})"
    elif result["difference"] is None:
        change = f"{result['disagreement']:.2f} % of the images changed class"
    else:
        change = f"top-1 {result['sparse']['top1']:.2f} % ({result['difference']['value']:+.2f})"
    return f"{change} in {result['seconds']:.1f} s"
