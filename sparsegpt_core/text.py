"""Text from anyone's files as a terminal or a page can show it."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Replace what cannot be printed: control characters, half surrogates, reversals of direction."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
