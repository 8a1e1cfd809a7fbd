"""The interface of a classifier that runs on images."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deploy.graph import InputShape
from sparsegpt_core.errors import InputError

__all__ = ["Session", "check_images"]


class Session(Protocol):
    """A classifier that is ready to run."""

    @property
    def name(self) -> str:
        """The file's name, for messages and reports."""

    @property
    def input_name(self) -> str:
        """The graph's name for its images."""

    @property
    def input_shape(self) -> InputShape:
        """(N, C, H, W); None for a dynamic dimension."""

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn images (N, C, H, W) into logits (N, classes)."""


def check_images(name: str, wanted: InputShape, images: npt.NDArray[Any]) -> None:
    """Check that images fit a session's input.

    Args:
        name: The session's name, for the message.
        wanted: (N, C, H, W); None for a dynamic dimension.
        images: (N, C, H, W) with any N above 0.

    Raises:
        InputError: The images do not fit, or there are none.
    """
    fits = images.ndim == len(wanted) and all(
        size in (None, given) for size, given in zip(wanted[1:], images.shape[1:])
    )
    if not fits or len(images) == 0:
        shape = ", ".join(["N", *("?" if size is None else str(size) for size in wanted[1:])])
        raise InputError(
            f"{name} takes images of shape ({shape}), not {images.shape}",
            "Use the data and image size that the model was exported for.",
        )
