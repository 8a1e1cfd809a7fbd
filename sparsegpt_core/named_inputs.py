"""Batches of NumPy arrays for networks with several inputs, with the interface of one array. Loads no torch."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from sparsegpt_core.errors import DataError

__all__ = ["Arrays", "InputNames", "NamedInputs", "to_bytes"]

_KINDS = "fiub"  # floats, integers and booleans


@dataclass(frozen=True)
class InputNames:
    """The names of a network's inputs, as data must give them."""

    names: tuple[str, ...]
    """All inputs, in order."""
    required: int
    """How many of them have no default; they come first."""

    @property
    def are_several(self) -> bool:
        """Whether the network needs more than images."""
        return self.required > 1

    def come_by_name(self, given: Container[str]) -> bool:
        """Return whether data with these arrays gives each input under its name, and not ``images`` for the only one.

        Example:
            >>> InputNames(("x",), required=1).come_by_name({"x"}), InputNames(("x",), 1).come_by_name({"x", "images"})
            (True, False)
        """
        return self.are_several or ("images" not in given and any(name in given for name in self.names[:1]))

    def choose(self, given: Iterable[str]) -> list[str]:
        """Return the inputs that are given: all that are required, and those after them without a gap.

        Raises:
            DataError: One is missing.

        Example:
            >>> InputNames(("images", "vector", "mask"), required=2).choose(["vector", "images", "labels"])
            ['images', 'vector']
        """
        found = [*given]
        chosen = [name for name in self.names if name in found]
        if len(chosen) < self.required or chosen != [*self.names[: len(chosen)]]:
            raise DataError(
                f"the network's inputs are {', '.join(self.names)}, the data has {', '.join(found) or 'nothing'}",
                "Name the arrays as the inputs.",
            )
        return chosen


class NamedInputs:
    """One array (N, ...) for each input of a network, with the length and slices of one array.

    Floating-point arrays become float32; all others are taken as they are.

    Raises:
        DataError: There are no samples, an array has no numbers, or the arrays differ in their number of samples.

    Example:
        >>> batch = NamedInputs({"images": np.zeros((4, 3, 8, 8)), "tokens": np.ones((4, 16), np.int64)})
        >>> len(batch), len(batch[:2]), batch.shapes["tokens"], str(batch)
        (4, 2, (16,), 'images (3, 8, 8) float32, tokens (16,) int64')
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        for name, values in arrays.items():
            if values.ndim == 0 or 0 in values.shape or values.dtype.kind not in _KINDS:
                raise DataError(
                    f"the input {name} has shape {values.shape} and dtype {values.dtype}",
                    "Give numbers (N, ...) with no dimension of 0.",
                )
        if len({len(values) for values in arrays.values()}) != 1:
            counts = ", ".join(f"{name} {len(values)}" for name, values in arrays.items())
            raise DataError(f"the inputs differ in their number of samples: {counts}", "The first axis of each is N.")
        with np.errstate(over="ignore"):  # a value outside float32 becomes infinity, which data sets refuse
            self.arrays = {
                name: values.astype(np.float32, copy=False) if values.dtype.kind == "f" else values
                for name, values in arrays.items()
            }

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, samples: Union[slice, npt.NDArray[np.int64]]) -> NamedInputs:
        return NamedInputs({name: values[samples] for name, values in self.arrays.items()})

    def __str__(self) -> str:
        return ", ".join(f"{name} {values.shape[1:]} {values.dtype}" for name, values in self.arrays.items())

    @property
    def shape(self) -> tuple[int, ...]:
        """Empty, since the inputs differ in their shapes."""
        return ()

    def describe(self) -> list[dict[str, Any]]:
        """Return the name of each input with its type and the shape of one sample, as JSON can hold them."""
        return [
            {"name": name, "shape": list(values.shape[1:]), "dtype": str(values.dtype)}
            for name, values in self.arrays.items()
        ]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample of each input."""
        return {name: values.shape[1:] for name, values in self.arrays.items()}

    def read(self, indices: Union[npt.NDArray[np.int64], Sequence[int]]) -> NamedInputs:
        """Return the samples at ``indices``."""
        return self[np.asarray(indices, dtype=np.int64)]

    def tobytes(self) -> bytes:
        """Return the content, for a digest."""
        return b"".join(f"{name}{values.dtype}".encode() + values.tobytes() for name, values in self.arrays.items())


def to_bytes(images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Round images on the scale 0..255, for networks that take bytes.

    Example:
        >>> to_bytes(np.array([-1.0, 127.6, 300.0])).tolist()
        [0, 128, 255]
    """
    rounded: npt.NDArray[np.uint8] = np.rint(images).clip(0, 255).astype(np.uint8)
    return rounded


Arrays = Union[npt.NDArray[Any], NamedInputs]
"""Images (N, C, H, W), or an array (N, ...) for each of several inputs."""
