"""Patterns are parsed, and violations of them found, as a walk over all groups finds them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparsegpt_core.errors import InputError
from sparsegpt_core.patterns import NM, Unstructured, find_violations, parse_pattern
from sparsegpt_core.solvers import keep_mask
from tests.support.strategies import brute_force_violations, patterns


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2:4", NM(2, 4)), ("1:4", NM(1, 4)), ("4:8", NM(4, 8)), ("0.5", Unstructured(0.5)), ("90%", Unstructured(0.9))],
)
def test_parse_pattern(text, expected):
    assert parse_pattern(text) == expected


@pytest.mark.parametrize("text", ["", "2", "4:4", "0:4", "5:4", "2:4:8", "a:b", "nan", "-0.5", "1.0", "100%", "2:"])
def test_parse_pattern_refuses_nonsense(text):
    with pytest.raises(InputError):
        parse_pattern(text)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_violations_equal_a_walk_over_all_groups(data):
    pattern = data.draw(patterns)
    shape = data.draw(st.lists(st.integers(1, 3), min_size=0, max_size=3))
    axis = data.draw(st.integers(0, len(shape)))
    shape.insert(axis, pattern.m * data.draw(st.integers(1, 3)))
    weight = data.draw(arrays(np.float32, tuple(shape), elements=st.sampled_from([0.0, -0.0, 1.0, -2.0, np.nan])))
    found = find_violations(weight, pattern, axis)
    expected = brute_force_violations(weight, pattern, axis)
    assert found.count == len(expected)
    assert found.groups == weight.size // pattern.m
    assert found.first == (min(expected) if expected else None)


def test_violations_refuse_an_axis_that_does_not_divide():
    with pytest.raises(InputError, match="multiple of 4"):
        find_violations(np.ones((4, 6)), NM(2, 4), axis=1)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_mask_keeps_the_largest_of_every_group(data):
    pattern = data.draw(patterns)
    rows, groups = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    scores = data.draw(arrays(np.float32, (rows, groups * pattern.m), elements=st.floats(0, 10, width=32)))
    keep = keep_mask(torch.from_numpy(scores), pattern).numpy()
    assert find_violations(keep, pattern, axis=1).count == 0
    for row, group in itertools.product(range(rows), range(groups)):
        part = slice(group * pattern.m, (group + 1) * pattern.m)
        kept = scores[row, part][keep[row, part]]
        # No other choice of N entries has a larger sum.
        best = max(sum(choice) for choice in itertools.combinations(scores[row, part], pattern.n))
        assert len(kept) == pattern.n
        assert kept.sum() == pytest.approx(best)


def test_unstructured_mask_has_the_exact_fraction_even_with_ties():
    keep = keep_mask(torch.ones(8, 10), Unstructured(0.3))
    assert int((~keep).sum()) == 24


def test_mask_refuses_columns_that_do_not_divide():
    with pytest.raises(InputError, match="group size 4"):
        keep_mask(torch.ones(2, 6), NM(2, 4))
