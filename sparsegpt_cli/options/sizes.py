"""Sizes of memory as people write them."""

from __future__ import annotations

import re

from sparsegpt_core.errors import InputError

__all__ = ["parse_size"]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str) -> int:
    """Return the bytes that ``8GiB``, ``8G``, ``500 MB`` or ``1e9`` mean; units are powers of 1024.

    Raises:
        InputError: The text is no size.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    try:
        size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise InputError(f"'{text}' is no size of memory", "For example 8GiB or 500MB.")
    return size
