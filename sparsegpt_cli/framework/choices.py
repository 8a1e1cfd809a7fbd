"""Options with a known set of values."""

from __future__ import annotations

from typing import Any

import typer

__all__ = ["choice"]


def choice(*values: str, is_open: bool = False, **option: Any) -> Any:
    """Return an option whose values the help shows and the shell completes. The command checks the value.

    Args:
        values: The values.
        is_open: Whether there are other values too.
        option: What ``typer.Option`` takes.

    Example:
        >>> choice("fast", "best", help="How long to take.").metavar
        'fast|best'
    """

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    option.setdefault("metavar", "|".join((*values, "…") if is_open else values))
    return typer.Option(autocompletion=complete, **option)
