"""The expected disagreement, against counted changes of class."""

from __future__ import annotations

import pytest
import torch

from calibration.evaluation import distance, expected_disagreement, logit_noise


@pytest.mark.parametrize(("scale", "noise"), [(1.0, 0.1), (0.6, 0.3), (1.3, 1.0)])
def test_it_is_the_share_of_many_images_and_few_show_it(scale, noise):
    generator = torch.Generator().manual_seed(0)
    reference = 2 * torch.randn(20000, 10, generator=generator)
    other = scale * reference + noise * torch.randn(reference.shape, generator=generator) + 3
    counted = distance(reference.double(), other.double()).disagreement
    # Without the mean of ten logits, a tenth of the noise is gone.
    assert logit_noise(reference, other) == pytest.approx(0.9 * (noise / scale) ** 2, rel=0.05)
    assert expected_disagreement(reference, logit_noise(reference, other)) == pytest.approx(counted, rel=0.25)
    few = logit_noise(reference[:64], other[:64])
    assert expected_disagreement(reference[:64], few) == pytest.approx(counted, rel=0.4)


def test_another_scale_and_offset_change_no_class():
    reference = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    assert expected_disagreement(reference, logit_noise(reference, 0.5 * reference + 1)) < 1e-9
    assert expected_disagreement(reference, logit_noise(reference, -reference)) == pytest.approx(50, abs=0.1)
