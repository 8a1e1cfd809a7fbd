"""Runs stages one after another, except those that are done and unchanged."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from sparsegpt_cli.framework import Session, flags_of
from sparsegpt_cli.messages import is_next_step
from sparsegpt_cli.resume import locked
from sparsegpt_cli.run.record import RunRecord, stamps
from sparsegpt_cli.run.stages import Stage
from sparsegpt_cli.terminal import Console
from sparsegpt_core.errors import SparseGPTError

__all__ = ["Outcome", "run_stages"]


@dataclass
class Outcome:
    """The result of a run."""

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The result of each stage."""
    ran: list[str] = field(default_factory=list)
    """The stages that ran."""
    unchanged: list[str] = field(default_factory=list)
    """The stages that were done and unchanged."""
    failed: str | None = None
    """The stage whose check failed."""

    def to_json(self) -> dict[str, Any]:
        """Return the output of ``run --json``, without the folder."""
        return asdict(self)


def run_stages(stages: Sequence[Stage], out: Path, context: typer.Context, console: Console) -> Outcome:
    """Run stages and record each in the folder's ``run.json``. A stage whose check fails ends the run.

    Args:
        stages: The stages in their order.
        out: The run's folder.
        context: The context of the command that runs the stages.
        console: Takes a message for every stage.

    Raises:
        InputError: Another run uses the folder, the folder cannot be written, or its record is damaged.
        SparseGPTError: A stage failed. The stages before it are done.
    """
    outcome = Outcome()
    is_own = not stamps(out) or RunRecord.exists(out)  # else the files are of another program
    with locked(out, "run"):
        record = RunRecord(out)
        for number, stage in enumerate(stages, 1):
            changes = record.changes(stage)
            where = f"[{number}/{len(stages)}] {stage.name}"
            if changes is not None and not changes:
                console.say(f"{where}: done and unchanged")
                outcome.unchanged.append(stage.name)
                outcome.stages[stage.name] = record.result(stage.name)
                continue
            console.say(f"{where} again: {'; '.join(changes)}" if changes else where)
            console.say(stage.line)
            before, reads = stamps(out), record.reads(stage)
            outcome.stages[stage.name], code = _run_stage(stage, context, console, force=is_own)
            _release_memory()
            if code:
                outcome.failed = stage.name
                break
            written = [path for path, stamp in stamps(out).items() if before.get(path) != stamp]
            record.keep(stage, reads, written, outcome.stages[stage.name])
            outcome.ran.append(stage.name)
    return outcome


class _StageConsole(Console):
    """Keeps the result of a stage for the result of the run, which itself says what is useful next."""

    def __init__(self, as_json: bool, quiet: bool, seed: int) -> None:
        super().__init__(as_json, quiet, seed)
        self.content: dict[str, Any] = {}

    def result(self, content: dict[str, Any], lines: Sequence[str | Table]) -> None:
        self.content = content
        if not self.as_json:
            super().result(content, [line for line in lines if not is_next_step(line)])


def _run_stage(stage: Stage, context: typer.Context, console: Console, force: bool) -> tuple[dict[str, Any], int]:
    """Run a stage in this process. Return its result and its exit status. It replaces files with ``force``."""
    root = context.find_root()
    command = root.command.commands[stage.name]  # type: ignore[attr-defined]
    arguments = [*stage.arguments, *(["--force"] if force and "force" in flags_of(command) else [])]
    made: list[_StageConsole] = []

    def make(_: bool, quiet: bool, seed: int) -> Console:
        made.append(_StageConsole(console.as_json, quiet or console.quiet, seed))
        return made[0]

    code = 0
    try:
        with command.make_context(stage.name, arguments, parent=root, obj=Session(console=make)) as started:
            command.invoke(started)
    except typer.Exit as ended:
        code = ended.exit_code
    except SparseGPTError as error:
        error.args = (f"{stage.name}: {error}",)
        raise
    return made[0].content, code


def _release_memory() -> None:
    """Free a stage's models, and PyTorch's cached GPU memory: TensorRT allocates its own for the next stage."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()
