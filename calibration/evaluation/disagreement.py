"""How many images change class: the target of ``max_disagreement``, and an expectation from few images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calibration.evaluation.proportions import images_needed, upper_limit

__all__ = ["DisagreementTarget", "expected_disagreement", "held_out_images", "logit_noise"]

_FEWEST_IMAGES = 512
_EXPECTED_CHANGES = 8  # of a network that just meets the target; three of them are allowed
_MAX_BYTES = 2**30  # of held-out images
_LARGEST_LOGITS = 5  # whose noise decides the class
_SMALLEST_SCALE = 1e-3  # of the other network's logits, which keep nothing of the reference's below it


def held_out_images(limit: float | None, sample_size: int) -> int:
    """Return how many images to hold out.

    Args:
        limit: The largest disagreement, in percent; None without a target.
        sample_size: The number of values in one image, or in all inputs of one sample.

    Example:
        >>> held_out_images(None, 3 * 32**2), held_out_images(0.5, 3 * 32**2), held_out_images(0.1, 3 * 224**2)
        (512, 1600, 1783)
    """
    if not limit:
        return _FEWEST_IMAGES
    return max(_FEWEST_IMAGES, min(math.ceil(100 * _EXPECTED_CHANGES / limit), _MAX_BYTES // (4 * sample_size)))


@dataclass(frozen=True)
class DisagreementTarget:
    """The largest share of images that may change class.

    Example:
        >>> target = DisagreementTarget(limit=0.5, images=1600)
        >>> target.meets(100 * 3 / 1600), target.meets(100 * 4 / 1600)
        (True, False)
        >>> print(DisagreementTarget(limit=0.5, images=500).warning)  # doctest: +ELLIPSIS
        a disagreement of 0.5 % cannot be shown on 500 held-out images, 598 are needed: the share itself is judged, ...
    """

    limit: float
    """In percent."""
    images: int
    """Held-out images that judge it."""

    @property
    def has_interval(self) -> bool:
        """Whether the images suffice to judge the upper 95 % limit of a share."""
        needed = images_needed(self.limit / 100)
        return needed is not None and self.images >= needed

    @property
    def warning(self) -> str | None:
        """Why the share itself is judged; None if its upper limit is."""
        if self.has_interval:
            return None
        needed = images_needed(self.limit / 100)
        more = "no number of images is enough" if needed is None else f"{needed} are needed"
        return (
            f"a disagreement of {self.limit:g} % cannot be shown on {self.images} held-out images, {more}: the share "
            "itself is judged, not its upper limit"
        )

    def upper_limit(self, disagreement: float) -> float:
        """Return the upper 95 % limit of a disagreement on the held-out images, both in percent."""
        return 100 * upper_limit(disagreement / 100 * self.images, self.images)

    def meets(self, disagreement: float) -> bool:
        """Return whether a network with this disagreement, in percent, meets the target."""
        return (self.upper_limit(disagreement) if self.has_interval else disagreement) <= self.limit

    def to_json(self, disagreement: float) -> dict[str, Any]:
        """Return the target and the chosen network's figures, in percent."""
        return {
            "max_disagreement": self.limit,
            "held_out": {
                "disagreement": disagreement,
                "upper_limit": self.upper_limit(disagreement),
                "images": self.images,
            },
            "judged_by": "upper_limit" if self.has_interval else "disagreement",
        }


def logit_noise(reference: Tensor, other: Tensor) -> float:
    """Return the variance of the noise that another network adds to the largest logits.

    With z the reference's logits without their mean, those of the other network are s (z + e). s is the least-squares
    factor, but positive, and the noise the mean of e² over the five largest logits of every image.

    Args:
        reference: Logits (N, classes), at least two classes.
        other: Logits of the same shape.

    Example:
        >>> reference = torch.tensor([[4.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> noise = torch.tensor([[0.0, 1.0, -1.0], [1.0, 0.0, -1.0]])
        >>> round(logit_noise(reference, 2 * (reference + noise)), 2), logit_noise(reference, 2 * reference)
        (0.67, 0.0)
    """
    centred, result = (logits.double() - logits.double().mean(1, keepdim=True) for logits in (reference, other))
    scale = ((centred * result).sum() / centred.square().sum().clamp_min(1e-300)).clamp_min(_SMALLEST_SCALE)
    largest = centred.topk(min(_LARGEST_LOGITS, centred.shape[1]), dim=1)
    noise = (result - scale * centred).gather(1, largest.indices).square().mean()
    return float(noise / scale.square())


def expected_disagreement(reference: Tensor, noise: float) -> float:
    """Return the percentage of images that noise on the logits is expected to put into another class.

    Among few images few change, so changes are not counted. A class whose logit leads by m loses its lead with
    probability Φ(−m / √(2 noise)).

    Args:
        reference: The dense network's logits (N, classes), at least two classes.
        noise: Its variance. That of several pruned layers is nearly the sum of what each alone adds.

    Example:
        >>> reference = torch.tensor([[4.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> round(expected_disagreement(reference, 0.67), 1), expected_disagreement(reference, 0.0)
        (2.1, 0.0)
    """
    first, second = reference.double().topk(2, dim=1).values.unbind(1)
    deviation = math.sqrt(max(2 * noise, 1e-300))
    return 100 * float(torch.special.ndtr((second - first) / deviation).mean())
