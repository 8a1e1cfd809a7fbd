"""Memory sizes as text."""

from __future__ import annotations

import re

from sparsegpt_core.errors import InputError

__all__ = ["parse_size"]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str) -> int:
    """Return the bytes that a text such as ``8GiB``, ``8G``, ``500 MB`` or ``1e9`` means; units are powers of 1024.

    Raises:
        InputError: The text is not a size above 0.

    Example:
        >>> parse_size("1.5g")
        1610612736
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    try:
        size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise InputError(f"'{text}' is not a memory size", "For example 8GiB or 500MB.")
    return size
