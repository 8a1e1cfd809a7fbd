"""The folder of an unfinished run: locked while the run works, and kept for the next run if it does not end well."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparsegpt_cli.messages import Messages
from sparsegpt_cli.resume.lock import locked
from sparsegpt_core.files import KeyedStore, changed_names
from sparsegpt_core.permutation import ORDERS

__all__ = ["LAYERS", "STAGES", "open_unfinished_run"]

LAYERS = "layers"
"""The name of the folder of finished layers, in the folder of an unfinished run."""

STAGES = "stages"
"""The name of the folder of finished stages, in the folder of an unfinished run."""

_ABOUT = "about"


@contextlib.contextmanager
def open_unfinished_run(out: Path, identity: Mapping[str, Any], messages: Messages) -> Iterator[Path]:
    """Give a folder next to ``out`` for finished layers and stages.

    The folder is removed when the run ends well. If the run fails or is interrupted, the folder stays as soon as
    something in it is finished.

    Args:
        out: The file or folder that the run writes.
        identity: What the run's results depend on, as JSON or as text can express it. The user sees what has changed.
        messages: Takes what is resumed, changed and kept.

    Raises:
        InputError: Another run writes to ``out``, or the folder cannot be made.

    Example:
        >>> from sparsegpt_cli.messages import SILENT
        >>> with open_unfinished_run(Path("sparse.safetensors"), {"samples": 512}, SILENT) as folder:
        ...     folder.name
        'sparse.safetensors.unfinished'
        >>> folder.exists()
        False
    """
    folder = out.with_name(f"{out.name}.unfinished")
    with locked(folder, "run"):
        try:
            _announce(folder, identity, messages)
            yield folder
        except BaseException:
            finished = _finished(folder)
            if finished:
                messages.say(f"kept in {folder}: {finished}. The next run with the same --out resumes from there.")
            else:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _announce(folder: Path, identity: Mapping[str, Any], messages: Messages) -> None:
    store, finished = KeyedStore(folder), _finished(folder)
    if finished:
        before = store.entry(_ABOUT)
        changed = changed_names(before.identity if before else {}, identity)
        if changed:
            messages.warn(
                f"the interrupted run had other settings ({', '.join(changed)}): what depends on them is computed again"
            )
        else:
            messages.say(f"resuming an interrupted run. Finished: {finished}.")
    store.write(_ABOUT, identity, {})


def _finished(folder: Path) -> str:
    """Describe the finished work in a folder; empty if there is none."""
    records = list(folder.glob(f"{LAYERS}/*/[!.]*.json"))
    orders = sum(path.parent.name == ORDERS for path in records)
    counts = {"channel orders": orders, "layers": len(records) - orders}
    stages = sorted(f"stage {name}" for name in KeyedStore(folder / STAGES).names())
    return ", ".join([*stages, *(f"{count} {kind}" for kind, count in counts.items() if count)])
