"""Measures the relative errors of outputs that are not logits but maps or features."""

from __future__ import annotations

__all__ = ["Outputs", "OutputsComparison", "OutputsReport"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict

import numpy as np
import numpy.typing as npt

from deploy.measure.accuracy import check_reference, check_samples
from sparsegpt_core.channel_errors import ChannelErrors, Energies, channel_energies, errors_by_channel, relative_errors
from sparsegpt_core.errors import InputError, NumericsError

Outputs = Callable[[Any], Mapping[str, npt.NDArray[Any]]]
"""A function from images (N, C, H, W), or all inputs, to all outputs by name, each of any shape."""


@dataclass(frozen=True)
class OutputsReport:
    """The output errors of all versions except the reference."""

    relative_errors: Mapping[str, Mapping[str, float]]
    """‖reference − output‖ / ‖reference‖ over all samples, by version and by output."""
    channel_errors: Mapping[str, Mapping[str, ChannelErrors]]
    """The same for each channel of outputs of three axes or more, in which large channels would hide others."""
    samples: int
    """Number of images."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return asdict(self)


class OutputsComparison:
    """Collects the outputs of all versions, batch by batch.

    Args:
        names: The names of the versions, including the reference.
        reference: The name of the version to compare with.

    Raises:
        InputError: The reference is not among the names.
    """

    def __init__(self, names: Sequence[str], reference: str) -> None:
        check_reference(names, reference)
        self._reference, self._samples = reference, 0
        self._energies: Dict[str, Energies] = {}
        self._errors: Dict[str, Dict[str, Energies]] = {name: {} for name in names if name != reference}

    def update(self, outputs: Mapping[str, Mapping[str, npt.NDArray[Any]]], count: int) -> None:
        """Take the outputs of every version for ``count`` images.

        Raises:
            InputError: Outputs do not match.
            NumericsError: Outputs contain NaN or infinity.
        """
        expected = _checked(self._reference, outputs[self._reference])
        for output, value in expected.items():
            self._energies[output] = self._energies.get(output, np.zeros(1)) + channel_energies(value)
        for name, sums in self._errors.items():
            found = _checked(name, outputs[name])
            if {key: value.shape for key, value in found.items()} != {k: v.shape for k, v in expected.items()}:
                raise InputError(
                    f"'{name}' and '{self._reference}' have different outputs", "Give versions of one model."
                )
            for output, value in found.items():
                sums[output] = sums.get(output, np.zeros(1)) + channel_energies(value - expected[output])
        self._samples += count

    def report(self) -> OutputsReport:
        """Return the errors of all versions except the reference.

        Raises:
            InputError: There are no samples.
        """
        check_samples(self._samples)
        relative = {
            name: {
                output: float(relative_errors(error.sum(), self._energies[output].sum()))
                for output, error in sums.items()
            }
            for name, sums in self._errors.items()
        }
        channels = {
            name: {
                output: found
                for output, error in sums.items()
                if (found := errors_by_channel(error, self._energies[output]))
            }
            for name, sums in self._errors.items()
        }
        return OutputsReport(relative, channels, self._samples)


def _checked(name: str, outputs: Mapping[str, npt.NDArray[Any]]) -> Dict[str, npt.NDArray[np.float64]]:
    for output, value in outputs.items():
        if not np.isfinite(value).all():
            raise NumericsError(
                f"output {output} of '{name}' contains NaN or infinity", "Export in FP32, or check the weights."
            )
    return {output: value.astype(np.float64) for output, value in outputs.items()}
