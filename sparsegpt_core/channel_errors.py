"""The relative errors of an output's channels, in which large channels such as coordinates would hide others."""

from __future__ import annotations

__all__ = ["ChannelErrors", "Energies", "channel_energies", "errors_by_channel", "relative_errors"]

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

Energies = npt.NDArray[np.float64]
"""Sums of squares (channels,)."""


@dataclass(frozen=True)
class ChannelErrors:
    """The relative errors of an output's channels: its second axis, or the third of three if that is shorter."""

    median: float
    """Half of the channels have a smaller error."""
    worst: float
    """The largest error."""
    worst_channel: int
    """The index of the channel with the largest error."""
    channels: int
    """Number of channels."""


def channel_energies(values: npt.NDArray[Any]) -> Energies:
    """Return the sum of squares of each channel; of an output of one or two axes that of all values.

    Example:
        >>> channel_energies(np.ones((2, 3, 4, 4)))
        array([32., 32., 32.])
    """
    squares = np.square(values.astype(np.float64))
    if squares.ndim < 3:
        return np.asarray([squares.sum()])
    axis = 2 if squares.ndim == 3 and squares.shape[2] < squares.shape[1] else 1
    return np.asarray(squares.sum(axis=tuple(each for each in range(squares.ndim) if each != axis)))


def relative_errors(errors: Energies, energies: Energies) -> Energies:
    """Return the square root of each quotient; where the energy is 0, that of the error.

    Args:
        errors: Of the differences from a reference.
        energies: Of the reference.

    Example:
        >>> relative_errors(np.array([1.0, 4.0]), np.array([4.0, 0.0]))
        array([0.5, 2. ])
    """
    return np.asarray(np.sqrt(errors / np.where(energies == 0, 1.0, energies)))


def errors_by_channel(errors: Energies, energies: Energies) -> Optional[ChannelErrors]:
    """Return the relative errors of the channels; None for a single one.

    Args:
        errors: As for :func:`relative_errors`.
        energies: As for :func:`relative_errors`.

    Example:
        >>> errors_by_channel(np.array([1.0, 9.0, 4.0]), np.array([100.0, 1.0, 100.0])).worst_channel
        1
    """
    if len(errors) == 1:
        return None
    found = relative_errors(errors, energies)
    worst = int(found.argmax())
    return ChannelErrors(float(np.median(found)), float(found[worst]), worst, len(found))
