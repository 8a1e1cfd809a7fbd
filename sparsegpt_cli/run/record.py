"""``run.json``: options, inputs and outputs of the finished stages of a run, to decide which stages run again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparsegpt_cli.framework import FOLDER
from sparsegpt_cli.run.stages import OUTPUTS, Stage
from sparsegpt_core import __version__
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import changed_names, read_json, sha256, write_json
from sparsegpt_core.user_code import source_file

__all__ = ["RunRecord", "Stamps", "stamps"]

_NAME = "run.json"
_FIELDS = {"tool_version": str, "options": dict, "reads": dict, "writes": dict, "result": dict}
_REPORTED = (".json", ".safetensors", ".onnx")
_CODE = ("model", "metric", "data", "eval_data")  # options that may name a user's code
_LIBRARIES = ("torchvision", "timm")  # whose networks are no code of a user
_COMPANIONS = (".data", ".json")  # an ONNX file's large weights, a plan's sidecar

Stamps = Mapping[Path, tuple[int, int, int]]
"""For each file the values that change when it is written: modification time, size and inode."""


@dataclass(frozen=True)
class _Done:
    """A finished stage. The names of files in the run's folder start with ``$OUT``."""

    tool_version: str
    """The version that ran the stage."""
    options: dict[str, Any]
    """The value of each option."""
    reads: dict[str, str]
    """The SHA-256 of each file that the stage read."""
    writes: dict[str, str]
    """The SHA-256 of each file that the stage wrote."""
    result: dict[str, Any]
    """The result of the stage, as JSON."""


class RunRecord:
    """The finished stages in a run's folder.

    Args:
        out: The folder.

    Raises:
        InputError: Its ``run.json`` is damaged.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._path = out, out / _NAME
        self._done = _parse(self._path) if self._path.exists() else {}

    @staticmethod
    def exists(out: Path) -> bool:
        """Return whether a folder has the record of a run."""
        return (out / _NAME).exists()

    def changes(self, stage: Stage) -> list[str] | None:
        """Return why a finished stage must run again; empty if it need not, None if it is not finished."""
        done = self._done.get(stage.name)
        if done is None:
            return None
        changes = _changed_options(done.options, stage.options)
        if done.tool_version != __version__:
            changes.append(f"sparsegpt-trt was {done.tool_version}, is {__version__}")
        changes += _changed_files(done.reads, self.reads(stage), "changed")
        written = {name: digest for name in done.writes if (digest := _digest(self._place(name)))}
        return changes + _changed_files(done.writes, written, "is not what it wrote")

    def reads(self, stage: Stage) -> dict[str, str]:
        """Return the SHA-256 of each file or user's code that a stage's options name, without data sets in folders."""
        named = (value for key, value in stage.options.items() if key not in OUTPUTS)
        code = (each for key in _CODE for each in _texts(stage.options.get(key)))
        paths = sorted({path for value in named for path in self._files(value)} | set(_source_files(code)))
        return {self._name(path): digest for path in paths if (digest := _digest(path))}

    def result(self, name: str) -> dict[str, Any]:
        """Return the result of a finished stage."""
        return self._done[name].result

    def keep(self, stage: Stage, reads: dict[str, str], written: Sequence[Path], result: dict[str, Any]) -> None:
        """Record a stage that has just finished. A file that it overwrote no longer belongs to an earlier stage.

        Args:
            stage: The stage.
            reads: The value of :meth:`reads` before the stage ran.
            written: The files that the stage wrote.
            result: The result of the stage, as JSON can express it.

        Raises:
            InputError: ``run.json`` cannot be written.
        """
        writes = {self._name(path): digest for path in sorted(written) if (digest := _digest(path))}
        for earlier in stage.after:
            if earlier in self._done:
                for name in writes:
                    self._done[earlier].writes.pop(name, None)
        self._done[stage.name] = _Done(__version__, dict(stage.options), reads, writes, result)
        write_json(self._path, {"stages": {name: asdict(done) for name, done in self._done.items()}})

    def _files(self, value: Any) -> Iterator[Path]:
        """Give the files that an option's value may name, with their companions."""
        for text in _texts(value):
            path = self._place(text.removeprefix("npz:"))
            if path == self._out:  # report reads the results in the folder, and the metadata of networks
                yield from (each for each in path.iterdir() if each.suffix in _REPORTED and each.name != _NAME)
            else:
                yield from (path, *(path.parent / f"{path.name}{end}" for end in _COMPANIONS))
                yield path.parent / f"{path.stem}.int8.safetensors"

    def _place(self, name: str) -> Path:
        return Path(name.replace(FOLDER, str(self._out), 1) if name.startswith(FOLDER) else name)

    def _name(self, path: Path) -> str:
        return f"{FOLDER}/{path.relative_to(self._out)}" if path.is_relative_to(self._out) else str(path)


def stamps(out: Path) -> Stamps:
    """Return the stamps of the files in a run's folder, without hidden files and ``run.json``."""
    found = {}
    for path in out.rglob("*"):
        inside = path.relative_to(out)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts) and inside != Path(_NAME):
            status = path.stat()
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def _texts(value: Any) -> list[str]:
    """Return the texts of an option's value: none, one or several."""
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str) and each]


def _source_files(names: Iterable[str]) -> Iterator[Path]:
    """Give the files of code that options name."""
    for name in names:
        if name.partition(":")[0] not in _LIBRARIES and (file := source_file(name)):
            yield file


def _parse(path: Path) -> dict[str, _Done]:
    try:
        stages = read_json(path)["stages"]
        return {
            name: _Done(**{field: kind(each[field]) for field, kind in _FIELDS.items()})
            for name, each in stages.items()
        }
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not the record of a run", "Delete it. Every stage then runs again.") from error


def _changed_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name.replace('_', '-')} was {_shown(before.get(name))}, is {_shown(now.get(name))}"
        for name in changed_names(before, now)
    ]


def _changed_files(before: Mapping[str, str], now: Mapping[str, str], how: str) -> list[str]:
    return [
        f"{name.removeprefix(f'{FOLDER}/')} "
        f"{how if name in before and name in now else 'is gone' if name in before else 'is new'}"
        for name in changed_names(before, now)
    ]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "not given" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _digest(path: Path) -> str | None:
    """Return a file's SHA-256; None if it cannot be read."""
    try:
        return sha256(path) if path.is_file() else None
    except (OSError, ValueError):
        return None
