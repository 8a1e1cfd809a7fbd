import threading

import pytest
import torch

from sparsegpt_core.execution import each, spans, workers

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_every_call_has_one_thread(threads):
    seen = each(lambda item: (item * item, torch.get_num_threads()), list(range(7)), CPU)
    assert [value for value, _ in seen] == [item * item for item in range(7)]
    assert {own for _, own in seen} == {1}
    assert torch.get_num_threads() == threads


def test_spare_threads_are_shared_among_the_calls(threads):
    own = each(lambda _: torch.get_num_threads(), [0, 1], CPU, spare=True)
    assert own == [max(1, threads // 2)] * 2
    assert workers(2, CPU) == min(2, threads)


def test_calls_run_at_the_same_time():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        barrier = threading.Barrier(2, timeout=20)
        assert sorted(each(lambda _: barrier.wait(), [0, 1], CPU)) == [0, 1]
    finally:
        torch.set_num_threads(before)


def test_nothing_is_recorded_for_gradients(threads):
    weight = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        assert not any(result.requires_grad for result in each(lambda factor: weight * factor, [1, 2, 3], CPU))


def test_the_first_error_is_raised(threads):
    def fail(item):
        if item == 2:
            raise ValueError("two")
        return item

    with pytest.raises(ValueError, match="two"):
        each(fail, list(range(50)), CPU)


def test_spans_cover_everything_once():
    assert spans(10, 4) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert spans(0, 4) == []
