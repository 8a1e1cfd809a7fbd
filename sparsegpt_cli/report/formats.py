"""Formats numbers: the filters of the report's template.

Each shows None, a number that was not measured, as a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparsegpt_cli.report.fields import Fields

__all__ = [
    "DASH",
    "FILTERS",
    "count",
    "duration",
    "fixed",
    "interval",
    "percent",
    "shape",
    "signed",
    "significant",
    "size",
]

DASH = "–"
"""Stands for a value that was not measured."""
_MINUS_SIGN = "\N{MINUS SIGN}"


def fixed(value: float | None, digits: int = 2, unit: str = "") -> str:
    """``98.333`` → ``98.33 %`` with the unit ``%``."""
    return DASH if value is None else _minus(f"{value:.{digits}f}") + (f"\N{NO-BREAK SPACE}{unit}" if unit else "")


def signed(value: float | None, digits: int = 2) -> str:
    """``-0.2`` → ``−0.20``."""
    if value is None:
        return DASH
    # A difference that rounds to nothing has no sign.
    return _minus(f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}")


def interval(difference: Fields, digits: int = 2) -> str:
    """``{"low": -0.9, "high": 0.5}`` → ``−0.90 … +0.50``."""
    low, high = difference.number("low"), difference.number("high")
    return DASH if low is None or high is None else f"{signed(low, digits)} … {signed(high, digits)}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """``0.5`` → ``50.0 %``."""
    return DASH if fraction is None else fixed(100 * fraction, digits, "%")


def significant(value: float | None, digits: int = 3) -> str:
    """Three significant digits."""
    return DASH if value is None else _minus(f"{value:.{digits}g}")


def count(value: float | None) -> str:
    """``11173962`` → ``11 173 962``, with spaces that do not break."""
    return DASH if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def size(value: float | None) -> str:
    """Bytes as ``46.8 MB``, in powers of 1000."""
    if value is None:
        return DASH
    for unit in ("B", "kB", "MB"):
        if abs(value) < 999.5:
            return fixed(value, 0 if unit == "B" else 1, unit)
        value /= 1000
    return fixed(value, 1, "GB")


def duration(value: float | None) -> str:
    """Seconds as ``0.42 s``, ``12.3 s`` or ``3 min 05 s``."""
    if value is None:
        return DASH
    if value < 59.95:
        return fixed(value, 2 if value < 10 else 1, "s")
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes}\N{NO-BREAK SPACE}min\N{NO-BREAK SPACE}{seconds:02d}\N{NO-BREAK SPACE}s"


def shape(axes: Sequence[int]) -> str:
    """``[64, 3, 7, 7]`` → ``64 × 3 × 7 × 7``."""
    return " × ".join(map(str, axes)) or DASH


def yes_no(flag: bool | None) -> str:
    """A boolean in words."""
    return DASH if flag is None else "yes" if flag else "no"


FILTERS: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (fixed, signed, interval, percent, significant, count, size, duration, shape, yes_no)
}


def _minus(text: str) -> str:
    return text.replace("-", _MINUS_SIGN)
