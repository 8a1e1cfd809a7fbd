"""What a checkpoint or an ONNX file notes about its model: it may come from anyone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsegpt_core.errors import ModelError

__all__ = ["check_model_notes"]

_MOST_CLASSES, _LONGEST_SIDE, _LARGEST_MEAN = 100_000, 1 << 16, 1e6  # more is damage, and may not fit into memory


def check_model_notes(noted: Any, source: object) -> dict[str, Any]:
    """Return the metadata, whose known keys must have the values that this program writes; null counts as absent.

    Args:
        noted: From JSON.
        source: The file, for messages.

    Raises:
        ModelError: Names the first key that is something else.
    """
    hint = "The file is damaged, or from another program."
    if not isinstance(noted, dict):
        raise ModelError(f"what {source} notes is no JSON object", hint)
    given = {key: value for key, value in noted.items() if value is not None or key not in _KINDS}
    wrong = next((key for key, fits in _KINDS.items() if key in given and not fits(given[key])), None)
    if wrong:
        raise ModelError(f"{source} notes {str(given[wrong])[:60]!r} as its {wrong}", hint)
    return given


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= _LARGEST_MEAN  # false for NaN


def _size(most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and 0 < value <= most


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _all(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _image(value: Any) -> bool:
    return _all(_size(_LONGEST_SIDE))(value) and len(value) == 3


_KINDS: dict[str, Callable[[Any], bool]] = {
    "model": _text,
    "pattern": _text,
    "pruned": _all(_text),
    "image": _image,
    "num_classes": _size(_MOST_CLASSES),
    "mean": _all(_number),
    "std": _all(_number),
}
