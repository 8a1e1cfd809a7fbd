"""Typed access to the JSON files of a run folder, which may be older than this version or damaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sparsegpt_core.errors import InputError
from sparsegpt_core.files import read_json
from sparsegpt_core.text import printable

__all__ = ["Fields"]

T = TypeVar("T")
_MAX_NUMBER = 1e15  # larger numbers are damage
_HINT = "The file is damaged or from another program: run the command that wrote it again."


class Fields:
    """A JSON object whose keys may be missing or null, but never of the wrong type.

    Every getter raises InputError, naming file and key, if a value has the wrong type.

    Args:
        data: The object.
        file: The file it was read from.
        prefix: The path of the object in the file, such as ``accuracy.``, for messages.
    """

    def __init__(self, data: Mapping[str, Any], file: Path, prefix: str = "") -> None:
        self._data, self._file, self._prefix = data, file, prefix

    @classmethod
    def read(cls, path: Path) -> Fields:
        """Read a file and make its strings printable.

        Raises:
            InputError: It is missing, not JSON, or not a JSON object.
        """
        data = _printable(read_json(path))
        if not isinstance(data, dict):
            raise InputError(f"{path} does not contain a JSON object", _HINT)
        return cls(data, path)

    def __bool__(self) -> bool:
        return bool(self._data)

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def has(self, key: str) -> bool:
        """Whether there is a value, and it is not null."""
        return self._data.get(key) is not None

    def text(self, key: str) -> str:
        """A string; empty if there is none."""
        return self._get(key, str, "a string", "")

    def flag(self, key: str) -> bool | None:
        """A boolean."""
        return self._get(key, bool, "true or false", None)

    def number(self, key: str) -> float | None:
        """A number of sensible size."""
        value = self._get(key, (int, float), "a number", None)
        if value is not None and not _is_sensible(value):
            raise self._wrong(key, "a number of sensible size")
        return value

    def child(self, key: str) -> Fields:
        """An object; an empty one if there is none."""
        return Fields(self._get(key, dict, "an object", {}), self._file, f"{self._prefix}{key}.")

    def children(self, key: str) -> list[Fields]:
        """A list of objects; empty if there is none."""
        return [
            Fields(item, self._file, f"{self._prefix}{key}[{index}].")
            for index, item in enumerate(self._list(key, dict, "a list of objects"))
        ]

    def strings(self, key: str) -> list[str]:
        """A list of strings; empty if there is none."""
        return self._list(key, str, "a list of strings")

    def integers(self, key: str) -> list[int]:
        """A list of integers; empty if there is none."""
        return self._list(key, int, "a list of integers")

    def numbers(self, key: str) -> list[float]:
        """A list of numbers of sensible size; empty if there is none."""
        return self._sensible(key, self._get(key, list, "a list of numbers", []))

    def number_lists(self, key: str) -> list[list[float]]:
        """A list of lists of numbers of sensible size; empty if there is none."""
        lists = self._list(key, list, "a list of lists of numbers")
        return [self._sensible(key, values) for values in lists]

    def flat(self) -> list[tuple[str, str]]:
        """All values as (dotted key, text) pairs, for values of any type."""
        return _flatten(self._data)

    def _get(self, key: str, kind: Any, wanted: str, default: T) -> Any | T:
        value = self._data.get(key)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise self._wrong(key, wanted)
        return value

    def _sensible(self, key: str, values: list[Any]) -> list[float]:
        if not all(map(_is_sensible, values)):
            raise self._wrong(key, "a list of numbers of sensible size")
        return values

    def _list(self, key: str, kind: type[T], wanted: str) -> list[T]:
        values: list[T] = self._get(key, list, wanted, [])
        if not all(isinstance(value, kind) for value in values):
            raise self._wrong(key, wanted)
        return values

    def _wrong(self, key: str, wanted: str) -> InputError:
        return InputError(f"{self._file}: {self._prefix}{key} is not {wanted}", _HINT)


def _is_sensible(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_NUMBER


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def _flatten(value: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for name, item in value.items() for pair in _flatten(item, f"{key}.{name}" if key else name)]
    if isinstance(value, list):
        return [(key, ", ".join(map(str, value)) or "–")]
    return [(key, "–" if value is None else str(value))]
