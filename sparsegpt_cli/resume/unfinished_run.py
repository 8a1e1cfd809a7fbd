"""A run under way: no other may write to the same place, and what it has finished waits there for the next one."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparsegpt_cli.messages import Messages
from sparsegpt_cli.resume.lock import locked
from sparsegpt_core.errors import InputError, SparseGPTError
from sparsegpt_core.files import read_json, write_json
from sparsegpt_core.permutation import ORDERS

__all__ = ["LAYERS", "STAGES", "open_unfinished_run"]

LAYERS = "layers"
"""The folder, in that of an unfinished run, for its layers."""

STAGES = "stages"
"""Likewise for what its stages told."""

_ABOUT = "about.json"


@contextlib.contextmanager
def open_unfinished_run(out: Path, identity: Mapping[str, Any], messages: Messages) -> Iterator[Path]:
    """Give a folder beside ``out`` for what is finished; it goes once the run is over, and stays if it was cut off.

    Args:
        out: What the run will write.
        identity: What its results depend on, as JSON can hold it: of what has changed since, the user is told.
        messages: To say so.

    Raises:
        InputError: Another run is writing to ``out``, or the folder cannot be made.
    """
    folder = out.with_name(f"{out.name}.unfinished")
    with locked(folder, "run"):
        try:
            _announce(folder, json.loads(json.dumps(identity, default=str)), messages)
            yield folder
        except BaseException as error:
            # What the system has caused, such as a full disk, can be mended and gone on from; a wrong input cannot.
            wrong = isinstance(error, SparseGPTError) and not isinstance(error.__cause__, OSError)
            if wrong or not (any(folder.glob(f"{LAYERS}/*/*")) or any(folder.glob(f"{STAGES}/*"))):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _announce(folder: Path, identity: dict[str, Any], messages: Messages) -> None:
    layers = sum(path.parent.name != ORDERS for path in folder.glob(f"{LAYERS}/*/*"))
    stages = sorted(path.stem for path in folder.glob(f"{STAGES}/*.json"))
    if layers or stages:
        try:
            before = read_json(folder / _ABOUT)
        except InputError:
            before = {}
        changed = [
            name for name, value in identity.items() if not isinstance(before, dict) or before.get(name) != value
        ]
        if changed:
            messages.warn(
                f"an unfinished run was of other settings ({', '.join(changed)}): what they touch starts anew"
            )
        else:
            messages.say(f"going on with an unfinished run: finished were {', '.join([*stages, f'{layers} layers'])}")
    write_json(folder / _ABOUT, identity)
