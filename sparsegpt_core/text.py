"""Makes text from untrusted files safe to show on a terminal or a page."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Replace characters that cannot be printed: control characters, half surrogates, changes of direction.

    Example:
        >>> printable(f"conv1{chr(27)}[31m")
        'conv1�[31m'
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
