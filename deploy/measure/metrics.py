"""A metric of a network's outputs, and one of its figures for several versions of the network."""

from __future__ import annotations

__all__ = ["METRIC_CONTRACT", "Figure", "Metric"]

import copy
import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Optional

from deploy.measure.accuracy import Difference
from sparsegpt_core.errors import InputError, SparseGPTError, first_line

METRIC_CONTRACT = (
    "Give a function (outputs, labels) that returns {name: N values}, or a class with update(outputs, labels) and "
    "compute()."
)
"""What a metric must be, as a hint."""


@dataclass(frozen=True)
class Metric:
    """A metric, and what its figures mean.

    The metric takes the outputs of N images and their labels as NumPy arrays. The outputs are one array (N, ...) of a
    network with one output, else a dict of them by name. The metric is one of two:

    - a function that returns one value for each image, ``{name: (N)}`` or an array (N);
    - a class, or an object of it, with ``update(outputs, labels)`` and ``compute()``, as in torchmetrics. ``compute``
      returns ``{name: float}`` or a float.

    Its attribute ``higher_is_better`` is a bool, or a dict of them by the figure's name.

    Raises:
        InputError: It is neither, or does not say whether higher is better.
    """

    source: Any
    """The function, class or object."""
    name: str
    """Its name, for messages, and for a figure without a name."""

    def __post_init__(self) -> None:
        has_protocol = all(callable(getattr(self.source, name, None)) for name in ("update", "compute"))
        if not has_protocol and (inspect.isclass(self.source) or not callable(self.source)):
            raise InputError(f"{self.name} is no metric", METRIC_CONTRACT)
        if not isinstance(getattr(self.source, "higher_is_better", None), (bool, dict)):
            raise InputError(
                f"the metric {self.name} does not say whether higher is better",
                "Set its attribute higher_is_better to True or False, or to {figure: True or False}.",
            )

    @property
    def is_accumulator(self) -> bool:
        """Whether it sums over batches, instead of giving one value for each image."""
        return hasattr(self.source, "compute")

    def accumulator(self) -> Any:
        """Return an accumulator without any images.

        Raises:
            InputError: It cannot be made.
        """
        source = self.source
        return self.call("making it", source if inspect.isclass(source) else lambda: copy.deepcopy(source))

    def higher_is_better(self, figure: str) -> bool:
        """Return whether a higher value of a figure is better.

        Raises:
            InputError: The metric does not say.
        """
        declared = self.source.higher_is_better
        found = declared.get(figure) if isinstance(declared, dict) else declared
        if not isinstance(found, bool):
            raise InputError(
                f"the metric {self.name} does not say whether a higher {figure} is better",
                f"Add '{figure}' to its attribute higher_is_better.",
            )
        return found

    def call(self, step: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the metric's code, and turn its exceptions into one line.

        Raises:
            InputError: The code raises an exception.
        """
        try:
            return function(*arguments)
        except SparseGPTError:
            raise
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            raise InputError(
                f"the metric {self.name} failed in {step}: {type(error).__name__}: {first_line(error)}",
                "It takes NumPy arrays: outputs (N, ...), or a dict of them if there are several, and labels.",
            ) from error


@dataclass(frozen=True)
class Figure:
    """One figure of all versions."""

    higher_is_better: bool
    """Whether a higher value is better."""
    interval: str
    """How intervals are computed: ``paired images`` or ``jackknife``."""
    samples: int
    """Number of images."""
    values: Mapping[str, float]
    """The figure by version."""
    differences: Mapping[str, Optional[Difference]]
    """The figure minus the reference's, by version without the reference; None for a single image."""

    def to_json(self) -> Dict[str, Any]:
        """Return the fields, with value and difference under each version's name."""
        versions: Dict[str, Any] = {name: {"value": value} for name, value in self.values.items()}
        for name, difference in self.differences.items():
            versions[name]["difference"] = difference and asdict(difference)
        return {
            "higher_is_better": self.higher_is_better,
            "interval": self.interval,
            "samples": self.samples,
            "versions": versions,
        }
