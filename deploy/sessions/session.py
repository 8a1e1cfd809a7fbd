"""The interface of a network that runs on images, or on several inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Dict, List, Protocol

import numpy as np
import numpy.typing as npt

from deploy.graph import InputShape
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.named_inputs import Arrays, NamedInputs, to_bytes

__all__ = ["Session", "cast_inputs", "check_inputs", "join_portions", "logits_of", "rows_of"]


class Session(Protocol):
    """A network that is ready to run."""

    @property
    def name(self) -> str:
        """The file's name, for messages and reports."""

    @property
    def input_shapes(self) -> Mapping[str, InputShape]:
        """(N, C, H, W) of images, or (N, ...) of each input, by name; None for a dynamic dimension."""

    def run(self, images: Arrays) -> npt.NDArray[np.float32]:
        """Turn images (N, C, H, W) into logits (N, classes), the first output."""

    def outputs(self, images: Arrays) -> Dict[str, npt.NDArray[Any]]:
        """Turn images (N, C, H, W) into all outputs (N, ...) by name, in the graph's order."""


def check_inputs(name: str, wanted: Mapping[str, InputShape], images: Arrays) -> Dict[str, npt.NDArray[Any]]:
    """Return the array of each input by name, after a check that they fit.

    Args:
        name: The session's name, for the message.
        wanted: The shape of each input by name; None for a dynamic dimension.
        images: (N, C, H, W) with any N above 0, or the arrays of several inputs.

    Raises:
        InputError: The images do not fit, or there are none.

    Example:
        >>> {name: x.shape for name, x in check_inputs("m.onnx", {"x": (None, 3)}, np.zeros((2, 3))).items()}
        {'x': (2, 3)}
    """
    given = images.arrays if isinstance(images, NamedInputs) else {"images": images}
    if len(given) == len(wanted) == 1:
        given = dict(zip(wanted, given.values()))
    if given.keys() != wanted.keys():
        raise InputError(
            f"{name} takes the inputs {', '.join(wanted)}, not {', '.join(given)}", "Give one array for each, by name."
        )
    for each, values in given.items():
        shape = wanted[each]
        fits = values.ndim == len(shape) and all(size in (None, own) for size, own in zip(shape[1:], values.shape[1:]))
        if not fits or len(values) == 0:
            what = "images" if len(wanted) == 1 else each
            text = ", ".join(["N", *("?" if size is None else str(size) for size in shape[1:])])
            raise InputError(
                f"{name} takes {what} of shape ({text}), not {values.shape}",
                "Use the data and image size that the model was exported for.",
            )
    return {each: given[each] for each in wanted}


def cast_inputs(
    name: str, wanted: Mapping[str, np.dtype[Any]], arrays: Mapping[str, npt.NDArray[Any]]
) -> Dict[str, npt.NDArray[Any]]:
    """Return the arrays in the types that a session takes.

    Args:
        name: The session's name, for the message.
        wanted: The type of each input by name.
        arrays: The array of each input by name.

    Raises:
        InputError: An input takes integers, and its array has another type.
    """
    for each, values in arrays.items():
        if wanted[each] == np.uint8 and values.dtype.kind == "f":
            arrays = {**arrays, each: to_bytes(values)}
        elif wanted[each].kind != "f" and values.dtype != wanted[each]:
            what = "images" if len(wanted) == 1 else each
            raise InputError(
                f"{name} takes {what} of type {wanted[each]}, not {values.dtype}",
                "Give the type that it was exported for.",
            )
    return {each: values.astype(wanted[each], copy=False) for each, values in arrays.items()}


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
