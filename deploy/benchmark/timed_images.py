"""Takes real images for a timed call."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Optional, Tuple

import numpy as np
import numpy.typing as npt

from deploy.measure import LabelledImages
from deploy.sessions import Session
from sparsegpt_core.errors import DataError, InputError

__all__ = ["first_images", "latency_images"]


def first_images(batches: Iterable[LabelledImages]) -> Tuple[npt.NDArray[Any], Iterable[LabelledImages]]:
    """Return the first batch's images, and an iterable of all batches.

    Raises:
        DataError: There are no images.
    """
    stream = iter(batches)
    first = next(stream, None)
    if first is None or not len(first[0]):
        raise DataError("there are no images to compare on", "Give `data` with an evaluation split, or `eval_data`.")
    return first[0], itertools.chain([first], stream)


def latency_images(
    sessions: Mapping[str, Session], images: npt.NDArray[Any], wanted: Optional[int], default: int = 1
) -> npt.NDArray[Any]:
    """Return images for one timed call; they repeat if there are too few.

    Args:
        sessions: The sessions to time. Some may have a fixed batch.
        images: The images to take from, (N, C, H, W).
        wanted: The number of images; None for the fixed batch, or ``default`` without one.
        default: The number of images if none is wanted or fixed.

    Raises:
        InputError: A session has another fixed batch.
    """
    fixed = {session.input_shape[0] for session in sessions.values() if session.input_shape[0] is not None}
    batch = wanted if wanted is not None else next(iter(fixed), default)
    if batch < 1 or fixed - {batch}:
        takes = " and ".join(map(str, sorted(fixed))) or "any number of"
        raise InputError(
            f"latency cannot be measured with batches of {batch}", f"The models take {takes} images at a time."
        )
    return np.take(images, np.arange(batch) % len(images), axis=0)
