"""Something that turns images into logits."""

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
        """What runs, for messages and reports."""

    @property
    def input_name(self) -> str:
        """The graph's name for its images."""

    @property
    def input_shape(self) -> InputShape:
        """(N, C, H, W); None where a dimension is dynamic."""

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn images (N, C, H, W) into logits (N, classes)."""


def check_images(name: str, wanted: InputShape, images: npt.NDArray[Any]) -> None:
    """Compare images with what a session takes.

    Args:
        name: The session's, for the message.
        wanted: (N, C, H, W); None where a dimension is dynamic.
        images: (N, C, H, W); any N but 0 will do.

    Raises:
        InputError: They do not fit, or there are none.
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
