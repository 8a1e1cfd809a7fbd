import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsegpt_core.errors import InputError
from sparsegpt_core.pruning import LayerResult, Tradeoff, fewest


def layers():
    def layer(name, shape, sensitivity, status="pruned"):
        sparsity = 0.5 if status == "pruned" else 0.0
        return LayerResult(name, "Conv2d", shape, status, None, sparsity, sensitivity=sensitivity)

    return [
        layer("stem", (10, 10), None, "dense"),
        layer("small", (10, 20), 0.4),
        layer("large", (10, 60), 0.6),
        layer("easy", (10, 10), 0.0),
    ]


def test_layers_with_the_most_error_per_zero_come_first():
    tradeoff = Tradeoff.of(layers())
    assert tradeoff.names == ("small", "large", "easy")
    assert tradeoff.sparsity == pytest.approx((0.45, 0.35, 0.05, 0.0))
    assert tradeoff.error == pytest.approx((1.0, 0.6, 0.0, 0.0))


@pytest.mark.parametrize(("budget", "count"), [(0.45, 0), (0.4, 0), (0.35, 1), (0.3, 1), (0.05, 2), (0.01, 2)])
def test_as_many_layers_stay_dense_as_the_budget_allows(budget, count):
    assert Tradeoff.of(layers()).for_sparsity(budget) == count


def test_a_budget_out_of_reach_names_the_reachable_sparsity():
    with pytest.raises(InputError, match=r"50\.0%.*45\.0%"):
        Tradeoff.of(layers()).for_sparsity(0.5)


@given(st.integers(1, 60), st.data())
def test_bisection_finds_the_smallest_number_that_meets_the_target(most, data):
    least, tried = data.draw(st.integers(1, most)), []

    def meets(count):
        assert 1 <= count < most
        tried.append(count)
        return count >= least

    assert fewest(most, meets) == least
    assert len(tried) <= most.bit_length()
