"""Hypothesis strategies for patterns, and a slow count of their violations."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from sparsegpt_core.patterns import NM

patterns = st.integers(2, 8).flatmap(lambda m: st.integers(1, m - 1).map(lambda n: NM(n, m)))


def brute_force_violations(weight, pattern, axis):
    """Return the index of every group with more than N non-zero weights, found by Python loops."""
    moved = np.moveaxis(weight, axis, -1)
    offending = []
    for index in itertools.product(*(range(size) for size in moved.shape[:-1])):
        for group in range(moved.shape[-1] // pattern.m):
            values = moved[index][group * pattern.m : (group + 1) * pattern.m]
            if sum(1 for value in values if value != 0) > pattern.n:
                offending.append((*index[:axis], group, *index[axis:]))
    return offending
