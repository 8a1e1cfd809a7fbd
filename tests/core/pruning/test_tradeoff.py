import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsegpt_core.errors import InputError
from sparsegpt_core.pruning import LayerResult, Tradeoff, fewest


def layers():
    def layer(name, shape, status="pruned"):
        return LayerResult(name, "Conv2d", shape, status, None, 0.5 if status == "pruned" else 0.0)

    return [
        layer("stem", (10, 10), "dense"),
        layer("small", (10, 20)),
        layer("large", (10, 60)),
        layer("easy", (10, 10)),
    ]


ERRORS = {"small": 0.4, "large": 0.6, "easy": 0.0}


def test_layers_with_the_most_error_per_zero_come_first():
    tradeoff = Tradeoff.of(layers(), ERRORS, expect=lambda error: 10 * error)
    assert tradeoff.names == ("small", "large", "easy")
    assert tradeoff.sparsity == pytest.approx((0.45, 0.35, 0.05, 0.0))
    assert tradeoff.error == pytest.approx((1.0, 0.6, 0.0, 0.0))
    assert tradeoff.expected == pytest.approx((10.0, 6.0, 0.0, 0.0))
    assert tradeoff.to_json()[1] == {
        "left_dense": "small", "sparsity": tradeoff.sparsity[1], "error": tradeoff.error[1],
        "expected_disagreement": tradeoff.expected[1], "speedup": None,
    }  # fmt: skip


def test_layers_with_the_most_error_for_the_time_they_save_come_first():
    """A layer that saves nothing comes before all others, unless it costs nothing."""
    tradeoff = Tradeoff.of(layers(), ERRORS, {"small": 0.2, "large": 0.1})
    assert tradeoff.names == ("large", "small", "easy")
    assert tradeoff.speedup == pytest.approx((1 / 0.7, 1 / 0.8, 1, 1))
    assert [tradeoff.for_speedup(speedup) for speedup in (1.4, 1.3, 1.25, 1.2)] == [0, 0, 1, 1]
    with pytest.raises(InputError, match=r"1\.5× cannot be reached: with all layers pruned the estimate is 1\.43×"):
        tradeoff.for_speedup(1.5)
    with pytest.raises(InputError, match="needs an estimate"):
        Tradeoff.of(layers(), ERRORS).for_speedup(1.1)


@pytest.mark.parametrize(("budget", "count"), [(0.45, 0), (0.4, 0), (0.35, 1), (0.3, 1), (0.05, 2), (0.01, 2)])
def test_as_many_layers_stay_dense_as_the_budget_allows(budget, count):
    assert Tradeoff.of(layers(), ERRORS).for_sparsity(budget) == count


def test_a_budget_out_of_reach_names_the_reachable_sparsity():
    with pytest.raises(InputError, match=r"50\.0%.*45\.0%"):
        Tradeoff.of(layers(), ERRORS).for_sparsity(0.5)


@given(st.integers(1, 60), st.data())
def test_bisection_finds_the_smallest_number_that_meets_the_target(most, data):
    least, tried = data.draw(st.integers(1, most)), []

    def meets(count):
        assert 1 <= count < most
        tried.append(count)
        return count >= least

    assert fewest(most, meets) == least
    assert len(tried) <= most.bit_length()
