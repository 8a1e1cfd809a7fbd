"""The temporary copy prunes by the same rule as the library."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deploy.predict.pruned_copy import magnitude_mask
from sparsegpt_core.solvers import keep_mask, magnitude
from tests.support.strategies import patterns


@given(st.data())
@settings(deadline=None)
def test_ties_go_to_the_same_entries_as_in_the_library(data: st.DataObject) -> None:
    pattern = data.draw(patterns)
    shape = data.draw(st.integers(1, 4)), pattern.m * data.draw(st.integers(1, 3))
    weight = data.draw(arrays(np.float32, shape, elements=st.integers(-2, 2).map(float)))  # many ties
    mask = magnitude_mask(weight, pattern, axis=1)
    assert np.array_equal(mask, keep_mask(torch.from_numpy(weight).abs(), pattern).numpy())
    assert np.array_equal(np.where(mask, weight, 0), magnitude(torch.from_numpy(weight), pattern).numpy())
