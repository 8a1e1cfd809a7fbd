"""Which layers pay: those that 2:4 can make faster on the GPU that the network is for."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from deploy.graph import DEFAULT_BATCHES, OnnxFile
from deploy.predict import EstimatedPrediction, LayerGains, MeasuredGain, find_gains, predict
from export.exporter import Exporter, ExportSettings
from export.writing import save_model
from sparsegpt_core.errors import InputError
from sparsegpt_core.network import matches, plan_layers, tensors_of
from sparsegpt_core.patterns import NM, Pattern
from sparsegpt_core.reasons import Reason
from sparsegpt_core.settings import PruneSettings

__all__ = ["PayingLayers", "Target", "find_paying", "has_sparse_kernels", "predict_for"]

_SMALL_SPEEDUP = 1.02  # below it the whole network is hardly faster


@dataclass(frozen=True)
class Target:
    """The GPU that a network is for, and how it will run there."""

    gpu: str
    """A key of :data:`~deploy.roofline.GPUS`."""
    precision: str = "fp16"
    """``fp16`` or ``int8``."""
    batch: int = DEFAULT_BATCHES[1]
    """Images in one inference. A fixed batch of an ONNX file comes first."""
    profile: Mapping[str, MeasuredGain] = field(default_factory=dict)
    """Measured gains by layer, in place of estimated ones."""


@dataclass(frozen=True)
class PayingLayers:
    """The layers that 2:4 can make faster, and the others that could be pruned."""

    gains: LayerGains
    """What sparse kernels gain in each layer."""
    layers: tuple[str, ...]
    """The layers to prune, in running order."""
    left_dense: Mapping[str, Reason]
    """The layers that stay dense since they gain nothing, with the reason."""
    target: str
    """The GPU, the precision and the batch that the estimate is for."""

    @property
    def speedup(self) -> float:
        """The estimated speed-up of the network with ``layers`` pruned."""
        return self.gains.speedup(self.layers)

    @property
    def verdict(self) -> str:
        """The estimate in one sentence."""
        if not self.gains.saved:
            return f"what 2:4 gains is unknown ({self.target}): no layer's shape could be inferred, so all are pruned"
        count = f"{len(self.layers)} of {len(self.layers) + len(self.left_dense)} layers can become faster"
        if self.speedup < _SMALL_SPEEDUP:
            return f"2:4 can gain at most {self.speedup:.2f}× here: {count} ({self.target}, estimated)"
        return f"{count}: pruning them can gain {self.speedup:.2f}× ({self.target}, estimated)"

    def to_json(self, pruned: Collection[str]) -> dict[str, Any]:
        """Return the estimate, and the share of the time that each layer saves.

        Args:
            pruned: The layers that were pruned in the end. A target may leave some of ``layers`` dense.
        """
        return {
            "target": self.target,
            "speedup": {"pruned": self.gains.speedup(pruned), "paying": self.speedup},
            "saved": {name: self.gains.saved.get(name) for name in (*self.layers, *self.left_dense)},
            "verdict": self.verdict,
        }


def has_sparse_kernels(pattern: Pattern) -> bool:
    """Return whether TensorRT has kernels for a pattern: each group of four has at most two non-zeros.

    Example:
        >>> has_sparse_kernels(NM(1, 4)), has_sparse_kernels(NM(4, 8))
        (True, False)
    """
    return isinstance(pattern, NM) and pattern.m == 4 and pattern.n <= 2


def predict_for(target: Target, model: Path, images: Tensor) -> EstimatedPrediction:
    """Estimate the speed-up of a network on its target.

    Args:
        target: The GPU, the precision and the batch.
        model: The network's ONNX file.
        images: Images of the size that the GPU will get, or a batch of several inputs.
    """
    file, shapes = OnnxFile(model), {}
    for (name, dims), tensor in zip(file.graph.inputs.items(), tensors_of(images), strict=True):
        wanted = (target.batch, *tensor.shape[1:])
        shape = tuple(fixed or size for fixed, size in zip(dims, wanted, strict=True))
        shapes[name] = (shape, shape, shape)
    return predict(file, shapes, target.gpu, target.precision)


def find_paying(
    model: nn.Module,
    images: Tensor,
    settings: PruneSettings,
    target: Target,
    export: ExportSettings,
    dense: Path | None = None,
) -> PayingLayers:
    """Find the layers that pay.

    Args:
        model: The dense network, in eval mode.
        images: A few images (N, C, H, W), or a batch of several inputs.
        settings: The pattern, and the layers that are left out. Layers that ``include`` names are pruned even if they
            gain nothing.
        target: The GPU and the precision.
        export: How the network is exported.
        dense: The exported network; None: it is exported to a temporary file.

    Raises:
        InputError: No layer pays, the GPU is unknown, or the profile belongs to another network.
        ModelError: torch.onnx cannot trace the network.
    """
    planned = [layer.name for layer in plan_layers(model, images[:2], settings) if layer.reason is None]
    with tempfile.TemporaryDirectory(prefix="sparsegpt-trt.") as folder:
        if dense is None:
            dense = Path(folder, "dense.onnx")
            save_model(Exporter(model, images, {}, settings.pattern, (), export).graph(), dense)
        prediction = predict_for(target, dense, images)
    gains = find_gains(prediction, planned, target.profile)
    left_dense = {name: reason for name, reason in gains.reasons.items() if not matches(name, settings.include)}
    paying = tuple(name for name in planned if name not in left_dense)
    batch = next(iter(prediction.shapes.values()))[0]
    where = f"{prediction.gpu}, {prediction.precision.upper()}, batch {batch}"
    if not paying:
        raise InputError(
            f"no layer can become faster with {settings.pattern} ({where}, estimated)",
            "Name the `gpu`, or a larger `engine_batch`; `layers=all` prunes every layer.",
        )
    return PayingLayers(gains, paying, left_dense, where)
