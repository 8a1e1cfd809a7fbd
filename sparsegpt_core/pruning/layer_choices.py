"""Choices for single layers: results of a measurement, which settings do not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparsegpt_core.errors import InputError
from sparsegpt_core.patterns import NM, Pattern, Unstructured
from sparsegpt_core.reasons import Reason

__all__ = ["LayerChoices"]


@dataclass(frozen=True)
class LayerChoices:
    """Choices for single layers.

    Example:
        >>> from sparsegpt_core.patterns import Unstructured
        >>> choices = LayerChoices(quotas={"conv": 0.7}, left_dense={"head": Reason.SENSITIVE})
        >>> str(choices.pattern_for("conv", Unstructured(0.5)))
        '0.7'
    """

    quotas: Mapping[str, float] = field(default_factory=dict)
    """Fractions of zeros by layer, in place of an unstructured pattern's. See
    :func:`~sparsegpt_core.pruning.global_quotas`."""
    left_dense: Mapping[str, Reason] = field(default_factory=dict)
    """Layers to leave dense, with the reason: pruning them costs most (see :class:`~sparsegpt_core.pruning.Tradeoff`),
    or gains nothing."""

    def check(self, pattern: Pattern) -> None:
        """Check that layers may have quotas.

        Raises:
            InputError: The pattern is N:M, which has the same zeros in every layer.
        """
        if self.quotas and isinstance(pattern, NM):
            raise InputError(
                f"{pattern} gives every layer the same zeros, so quotas do not apply",
                "Use a fraction such as `pattern=0.5`.",
            )

    def pattern_for(self, layer: str, pattern: Pattern) -> Pattern:
        """Return the pattern of one layer: its quota, or else the network's pattern."""
        return Unstructured(self.quotas[layer]) if layer in self.quotas else pattern
