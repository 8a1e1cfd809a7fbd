"""What a TensorRT build log says about sparse kernels, in the dialects of 8.x and of 10.x and later.

8.x lists names; 10.x and later count, and some versions add the names. Every tactic pass prints its own pair, of
which the last one ships::

    (Sparsity) Layers eligible for sparse math: Conv_0 + Relu_1, Conv_2
    (Sparsity) TRT inference plan picked sparse implementation for layers: Conv_2
    (Sparsity) Found 2 layer(s) eligible to use sparse tactics: conv1, conv2
    (Sparsity) Chose 1 layer(s) using sparse tactics: conv2
"""

from __future__ import annotations

__all__ = ["SparsityLog", "count_memory_skips", "read_sparsity"]

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import List, Optional, Tuple

Names = Tuple[str, ...]

# Written out as [0-9]: \d would also take the digits of other scripts for numbers.
_ELIGIBLE = re.compile(
    r"\(Sparsity\) (?:Layers eligible for sparse math:"
    r"|Found (?P<count>[0-9]{1,9}) layer\(s\) eligible to use sparse tactics:?)(?P<names>.*)"
)
_CHOSEN = re.compile(
    r"\(Sparsity\) (?:TRT inference plan picked sparse implementation for layers:"
    r"|Chose (?P<count>[0-9]{1,9}) layer\(s\) using sparse tactics:?)(?P<names>.*)"
)
_PARENTHESIS = re.compile(r"([()])")

_MEMORY = re.compile(
    r"insufficient memory|memory is insufficient|out of memory|error allocating|not have sufficient workspace memory",
    re.IGNORECASE,
)
_ANNOUNCED, _SKIPPED = re.compile(r"memory is insufficient to use tactic"), re.compile(r"Skipping tactic")


@dataclass(frozen=True)
class SparsityLog:
    """How many layers the builder found eligible and chose, and which; None where it did not say.

    Names are those of the engine's layers, which may be fused (``conv1 + relu1``).
    """

    eligible: Optional[int] = None
    chosen: Optional[int] = None
    eligible_names: Optional[Names] = None
    chosen_names: Optional[Names] = None


def read_sparsity(lines: Iterable[str]) -> SparsityLog:
    """Read the last pair of lines; a line without its partner counts where there is no pair."""
    eligible: Tuple[Optional[int], Optional[Names]] = (None, None)
    log = SparsityLog()
    for line in lines:
        found, chose = _ELIGIBLE.search(line), _CHOSEN.search(line)
        if found:
            eligible = _layers(found)
        if chose:
            count, names = _layers(chose)
            log = SparsityLog(eligible[0], count, eligible[1], names)
    return log if log.chosen is not None else SparsityLog(eligible[0], eligible_names=eligible[1])


def count_memory_skips(lines: Iterable[str]) -> int:
    """Count the tactics that were left out because memory ran short.

    8.x announces the want of memory on one line and skips the tactic on the next: those two are one.
    """
    count, announced = 0, False
    for line in lines:
        count += bool(_MEMORY.search(line)) and not (announced and bool(_SKIPPED.search(line)))
        announced = bool(_ANNOUNCED.search(line))
    return count


def _layers(match: re.Match[str]) -> Tuple[int, Optional[Names]]:
    names = tuple(name.strip() for name in _split(match["names"]) if name.strip())
    if match["count"] is None:
        return len(names), names
    count = int(match["count"])
    return count, names if len(names) == count else None  # absent, cut off, or with commas of their own


def _split(names: str) -> List[str]:
    """Split at commas, not at those of PWN(relu_1, add_2); in one pass, since a line may have a million of them."""
    parts = _PARENTHESIS.split(names)
    for index in range(0, len(parts), 2):
        if parts[index + 1 : index + 2] != [")"]:
            parts[index] = re.sub(r",\s", "\n", parts[index])
    return "".join(parts).rstrip(",").split("\n")
