"""Reads what a TensorRT build log says about sparse kernels.

TensorRT 8.x lists layer names. 10.x and later print counts, and some versions add the names. Each tactic pass prints
one pair of lines, and the last pair describes the engine::

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

# [0-9] and not \d, which also matches digits of other scripts.
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
    r"insufficient memory|memory is insufficient|out of (?:scratch )?memory|error allocating"
    r"|not have sufficient workspace memory",
    re.IGNORECASE,
)
_ANNOUNCED, _SKIPPED = re.compile(r"memory is insufficient to use tactic"), re.compile(r"Skipping tactic")


@dataclass(frozen=True)
class SparsityLog:
    """The builder's own counts of sparse layers; None where the log does not say.

    Names are those of engine layers, which may be fused (``conv1 + relu1``).
    """

    eligible: Optional[int] = None
    """Layers that the builder found eligible for sparse kernels."""
    chosen: Optional[int] = None
    """Layers for which it chose sparse kernels."""
    eligible_names: Optional[Names] = None
    """Their names, where the log lists them."""
    chosen_names: Optional[Names] = None
    """Their names, where the log lists them."""


def read_sparsity(lines: Iterable[str]) -> SparsityLog:
    """Read the last pair of lines about sparsity, or a single line where there is no pair.

    Example:
        >>> log = read_sparsity(["(Sparsity) Found 2 layer(s) eligible to use sparse tactics: conv1, conv2",
        ...                      "(Sparsity) Chose 1 layer(s) using sparse tactics: conv2"])
        >>> log.eligible, log.chosen_names
        (2, ('conv2',))
    """
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
    """Count the tactics that the builder skipped because it had too little memory.

    8.x reports the shortage on one line and the skipped tactic on the next; the two lines count once.

    Example:
        >>> count_memory_skips(["Skipping tactic 3 due to insufficient memory on requested size of 99"])
        1
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
    return count, names if len(names) == count else None  # names are missing, cut off, or contain commas


def _split(names: str) -> List[str]:
    """Split at commas, but not inside PWN(relu_1, add_2). One pass suffices for a line with a million names."""
    parts = _PARENTHESIS.split(names)
    for index in range(0, len(parts), 2):
        if parts[index + 1 : index + 2] != [")"]:
            parts[index] = re.sub(r",\s", "\n", parts[index])
    return "".join(parts).rstrip(",").split("\n")
