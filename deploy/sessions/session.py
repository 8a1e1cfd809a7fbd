"""The interface of a network that runs on images."""

from __future__ import annotations

from typing import Any, Dict, List, Protocol

import numpy as np
import numpy.typing as npt

from deploy.graph import InputShape
from sparsegpt_core.errors import InputError, ModelError

__all__ = ["Session", "check_images", "join_portions", "logits_of", "rows_of"]


class Session(Protocol):
    """A network that is ready to run."""

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
        """Turn images (N, C, H, W) into logits (N, classes), the first output."""

    def outputs(self, images: npt.NDArray[Any]) -> Dict[str, npt.NDArray[Any]]:
        """Turn images (N, C, H, W) into all outputs (N, ...) by name, in the graph's order."""


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


def join_portions(portions: List[Dict[str, npt.NDArray[Any]]]) -> Dict[str, npt.NDArray[Any]]:
    """Join the outputs of consecutive portions of images; FP16 outputs become FP32."""
    joined = {name: np.concatenate([each[name] for each in portions]) for name in portions[0]}
    return {
        name: values.astype(np.float32) if values.dtype == np.float16 else values for name, values in joined.items()
    }


def rows_of(session: str, output: str, values: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Return an output that has one row for each image.

    Raises:
        InputError: It does not.
    """
    if values.ndim == 0 or len(values) != count:
        raise InputError(
            f"output '{output}' of {session} has shape {values.shape} for {count} images",
            "Export a network whose outputs have one row for each image.",
        )
    return values


def logits_of(session: str, outputs: Dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """Return the first output, if it is (N, classes).

    Raises:
        ModelError: It is not.
    """
    logits = next(iter(outputs.values()))
    if logits.ndim != 2:
        raise ModelError(f"{session} returns {logits.shape}, not (N, classes)", "Give an image classifier.")
    return np.asarray(logits, dtype=np.float32)
