"""What a TensorRT build log says about sparse kernels, in the dialects of 8.x and of 10.x and later."""

from __future__ import annotations

__all__ = ["SparsityLog", "count_memory_skips", "read_sparsity"]

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

# Written out as [0-9]: \d would also take the digits of other scripts for numbers.
_ELIGIBLE = (
    re.compile(r"\(Sparsity\) Found (?P<count>[0-9]+) layer\(s\) eligible to use sparse tactics"),
    re.compile(r"\(Sparsity\) Layers eligible for sparse math:(?P<names>.*)"),
)
_CHOSEN = (
    re.compile(r"\(Sparsity\) Chose (?P<count>[0-9]+) layer\(s\) using sparse tactics"),
    re.compile(r"\(Sparsity\) TRT inference plan picked sparse implementation for layers:(?P<names>.*)"),
)
_MEMORY = re.compile(r"insufficient memory|memory is insufficient|out of memory", re.IGNORECASE)


@dataclass(frozen=True)
class SparsityLog:
    """How many layers the builder found eligible and chose; None where it did not say."""

    eligible: Optional[int] = None
    chosen: Optional[int] = None


def read_sparsity(lines: Iterable[str]) -> SparsityLog:
    """Read the last eligible/chosen pair: each tactic pass prints its own, and the last one ships."""
    eligible = None
    pair = SparsityLog()
    for line in lines:
        found, chose = _count(_ELIGIBLE, line), _count(_CHOSEN, line)
        if found is not None:
            eligible = found
        if chose is not None:
            pair = SparsityLog(eligible, chose)
    return pair if pair.chosen is not None else SparsityLog(eligible)


def count_memory_skips(lines: Iterable[str]) -> int:
    """Count the messages of tactics that were left out because memory ran short."""
    return sum(bool(_MEMORY.search(line)) for line in lines)


def _count(patterns: Iterable[re.Pattern[str]], line: str) -> Optional[int]:
    for pattern in patterns:
        match = pattern.search(line)
        if match:
            groups = match.groupdict()
            return int(groups["count"]) if "count" in groups else len(re.findall(r"[^,\s][^,]*", groups["names"]))
    return None
