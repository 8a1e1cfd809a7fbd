"""Every error this project raises on purpose.

    SparseGPTError
    ├── InputError             a path, file, value or shape that the caller gave is wrong
    │   ├── ModelError         a model cannot be found, loaded or pruned
    │   └── DataError          a data set cannot be read, or does not fit the model
    ├── NumericsError          NaN or infinity, or a Hessian that no damping makes positive definite
    ├── CheckFailedError       a stage broke what it promised (pattern lost, outputs differ, gate missed)
    └── MissingDependencyError an optional package is needed and not importable

``str(error)`` is one line that says what is wrong. ``hint`` is one line that says how to fix it. Both name a setting in
backticks, as Python spells it: ```samples```, ```permute=False```. The command line shows it as its flag.
"""

from __future__ import annotations

from sparsegpt_core.text import printable

__all__ = [
    "CheckFailedError",
    "DataError",
    "InputError",
    "MissingDependencyError",
    "ModelError",
    "NumericsError",
    "SparseGPTError",
    "first_line",
]

_LONGEST = 2000  # characters of a message; a hostile name may have millions


class SparseGPTError(Exception):
    """Base class: catch this one to catch them all.

    Args:
        message: What is wrong, in one line.
        hint: How to mend it, in one line; empty where the message says it all.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(_one_line(message))
        self.hint = _one_line(hint)


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign error's message, its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class InputError(SparseGPTError):
    """Something the caller gave is wrong."""


class ModelError(InputError):
    """A model cannot be found, loaded or pruned."""


class DataError(InputError):
    """A data set cannot be read, or does not fit the model."""


class NumericsError(SparseGPTError):
    """Numbers went wrong: NaN, infinity, or a matrix that is not positive definite."""


class CheckFailedError(SparseGPTError):
    """A stage's promise does not hold for its output."""


class MissingDependencyError(SparseGPTError):
    """An optional package is needed and cannot be imported."""


def _one_line(text: str) -> str:
    """Return text from wherever as a terminal can show it: no control characters, of bounded length."""
    line = " ".join(printable(text[: 4 * _LONGEST]).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
