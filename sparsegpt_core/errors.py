"""All errors that this project raises on purpose.

    SparseGPTError
    ├── InputError             a path, file, value or shape that the caller gave is wrong
    │   ├── ModelError         a model cannot be found, loaded or pruned
    │   └── DataError          a data set cannot be read, or does not fit the model
    ├── NumericsError          NaN or infinity, or a Hessian that no damping makes positive definite
    ├── CheckFailedError       the output of a stage fails its check (pattern lost, outputs differ, gate missed)
    └── MissingDependencyError an optional package is needed and cannot be imported

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

_MAX_MESSAGE_CHARACTERS = 2000  # a name from an untrusted file may have millions


class SparseGPTError(Exception):
    """The base class of all errors.

    Args:
        message: The problem, in one line.
        hint: How to fix it, in one line; empty if the message says so already.

    Example:
        >>> error = InputError("pruning needs calibration images", "Raise `samples`.")
        >>> str(error), error.hint
        ('pruning needs calibration images', 'Raise `samples`.')
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(_one_line(message))
        self.hint = _one_line(hint)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or the name of its class if it has no message.

    Example:
        >>> first_line(ValueError("bad shape"))
        'bad shape'
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class InputError(SparseGPTError):
    """An input of the caller is wrong: a path, file, value or shape."""


class ModelError(InputError):
    """A model cannot be found, loaded or pruned."""


class DataError(InputError):
    """A data set cannot be read, or does not fit the model."""


class NumericsError(SparseGPTError):
    """A number is NaN or infinite, or a matrix is not positive definite."""


class CheckFailedError(SparseGPTError):
    """The output of a stage fails its check."""


class MissingDependencyError(SparseGPTError):
    """An optional package is needed and cannot be imported."""


def _one_line(text: str) -> str:
    """Return text as one line of limited length without control characters."""
    line = " ".join(printable(text[: 4 * _MAX_MESSAGE_CHARACTERS]).split())
    return line if len(line) <= _MAX_MESSAGE_CHARACTERS else f"{line[: _MAX_MESSAGE_CHARACTERS - 1]}…"
