"""The outcome of pruning: of every layer, and of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sparsegpt_core.network import Int8Weight
from sparsegpt_core.reasons import Reason

__all__ = ["LayerResult", "PruneResult"]


@dataclass(frozen=True)
class LayerResult:
    """The outcome of one layer.

    Errors are relative to E‖W x‖² over the calibration inputs. x is the layer's input in the dense network, x̃ that in
    the pruned network; without the dense target x = x̃. Where only a batch norm reads the outputs, its scale is part of
    W. Biases are included where they were shifted. Measured fields
    are None where no input was read: with magnitude pruning, and in dense layers other than grouped convolutions, whose
    outputs keep their mean and variance.
    """

    name: str
    """Name of the module in the network."""
    kind: str
    """Class of the module, such as ``Conv2d``."""
    shape: tuple[int, ...]
    """Shape of the weight: (K, C, *kernel)."""
    status: str
    """``pruned`` or ``dense``."""
    reason: Reason | None
    """Why the layer is dense; None: it is pruned."""
    sparsity: float
    """Fraction of zeros in the weight."""
    relative_error: float | None = None
    """E‖W x − Ŵ x̃‖² / E‖W x‖²."""
    magnitude_error: float | None = None
    """The same error with magnitude pruning on the same inputs."""
    inherited_error: float | None = None
    """The same error with the layer's dense weight. None without the dense target."""
    sensitivity: float | None = None
    """Error on held-out samples that pruning adds. None: no samples were held out."""
    damping: float | None = None
    """λ relative to the mean of the Hessian's diagonal."""
    positions: int | None = None
    """Output positions of the calibration set."""
    positions_used: int | None = None
    """Output positions in the statistics."""
    masks: dict[str, int] | None = None
    """Rows by the mask they took. None: all took the same."""
    alphas: dict[float, int] | None = None
    """Rows by the α they took. None: all took the same."""
    seconds: float = 0.0
    """Wall-clock time."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return asdict(self)


@dataclass(frozen=True)
class PruneResult:
    """The outcome of :func:`~sparsegpt_core.pruning.prune_model`."""

    layers: tuple[LayerResult, ...]
    """Every convolution and linear layer, in running order."""
    seconds: dict[str, float]
    """Wall-clock time by stage: ``trace``, ``forward``, ``statistics`` and ``solve``."""
    warnings: tuple[str, ...]
    """Messages for the user."""
    spilled_bytes: int = 0
    """Bytes of activations that were written to disk."""
    int8_weights: Mapping[str, Int8Weight] = field(default_factory=dict)
    """Every pruned weight rounded to INT8, by layer. Empty unless asked for."""
    keeps_variance: bool = False
    """Whether the variance of the layers' outputs was kept."""

    @property
    def pruned(self) -> int:
        """The number of pruned layers."""
        return sum(layer.status == "pruned" for layer in self.layers)
