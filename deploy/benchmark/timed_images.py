"""Takes real images for a timed call."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Optional, Tuple

import numpy as np

from deploy.measure import LabelledImages
from deploy.sessions import Session
from sparsegpt_core.errors import DataError, InputError
from sparsegpt_core.named_inputs import Arrays

__all__ = ["first_images", "latency_images"]


def first_images(batches: Iterable[LabelledImages]) -> Tuple[Arrays, Iterable[LabelledImages]]:
    """Return the first batch's images, and an iterable of all batches.

    Raises:
        DataError: There are no images.
    """
    stream = iter(batches)
    first = next(stream, None)
    if first is None or not len(first[0]):
        raise DataError("there are no images to compare on", "Give `data` with an evaluation split, or `eval_data`.")
    return first[0], itertools.chain([first], stream)


def latency_images(sessions: Mapping[str, Session], images: Arrays, wanted: Optional[int], default: int = 1) -> Arrays:
    """Return images for one timed call; they repeat if there are too few.

    Args:
        sessions: The sessions to time. Some may have a fixed batch.
        images: The images to take from, (N, C, H, W), or all inputs.
        wanted: The number of images; None for the fixed batch, or ``default`` without one.
        default: The number of images if none is wanted or fixed.

    Raises:
        InputError: A session has another fixed batch.
    """
    shapes = [shape for session in sessions.values() for shape in session.input_shapes.values()]
    fixed = {shape[0] for shape in shapes if shape and shape[0] is not None}
    batch = wanted if wanted is not None else next(iter(fixed), default)
    if batch < 1 or fixed - {batch}:
        takes = " and ".join(map(str, sorted(fixed))) or "any number of"
        raise InputError(
            f"latency cannot be measured with batches of {batch}", f"The models take {takes} images at a time."
        )
    return images[np.arange(batch) % len(images)]
