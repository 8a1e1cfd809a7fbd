import itertools

import pytest

from sparsegpt_core.statistics.displacements import Axis, find_displacements


def axis(kernel, size=14, stride=1, dilation=1, padding=0):
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return Axis(size, kernel, stride, dilation, padding, out)


@pytest.mark.parametrize(("kernel", "count"), [((3, 3), 13), ((5, 5), 41), ((3,), 3), ((1, 7), 7), ((3, 3, 3), 63)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_one_product_for_each_displacement(kernel, count, dilation):
    axes = tuple(axis(k, size=20, dilation=dilation, padding=k // 2) for k in kernel)
    assert len(find_displacements(axes)) == count
    # 'same' padding: no product is longer than the image.
    assert all(d.positions <= 20 ** len(kernel) for d in find_displacements(axes))


def test_without_padding_the_strips_cost_little():
    axes = (axis(3, size=58), axis(3, size=58))
    assert sum(d.positions for d in find_displacements(axes)) < 13.5 * 56 * 56


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_every_pair_sums_what_its_taps_see_and_nothing_else(stride, dilation, padding):
    one = axis(3, 9, stride, dilation, padding)
    seen = {}
    for displacement in find_displacements((one,)):
        ((shared),) = displacement.axes
        for (t, u), cover in zip(displacement.pairs((3,)), displacement.covers, strict=True):
            parts = itertools.compress(shared.segments, cover)
            pixels = [i for start, stop in parts for i in range(start, stop)]
            seen[t, u] = [
                (stride * i + shared.phases[0], stride * (i + shared.shift) + shared.phases[1]) for i in pixels
            ]
    for t, u in itertools.combinations_with_replacement(range(3), 2):
        pairs = [(stride * p + dilation * t - padding, stride * p + dilation * u - padding) for p in range(one.out)]
        assert seen.get((t, u), []) == [(a, b) for a, b in pairs if 0 <= a < 9 and 0 <= b < 9]
