"""Images that calibration does not use, and how far pruned networks are from the dense one on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from calibration.evaluation.disagreement import expected_disagreement, logit_noise
from calibration.evaluation.output_distance import Distance, distance, outputs_of
from sparsegpt_core.execution import World
from sparsegpt_core.progress import Progress

__all__ = ["Comparison", "HeldOut"]


class Comparison(NamedTuple):
    """A network compared with the dense one."""

    distance: Distance
    """Of the outputs."""
    drop: float | None
    """Percentage points by which top-1 falls; None without labels."""
    noise: float | None
    """The variance of the noise on logits; None without classes or calibration images."""

    @property
    def error(self) -> float:
        """The noise, or else the relative error of the outputs."""
        return self.distance.logit_error if self.noise is None else self.noise


@dataclass(frozen=True)
class HeldOut:
    """Held-out images, and the dense network's outputs for them.

    Its figures are those of the first process, on every process.
    """

    batches: Sequence[Tensor]
    """Images (N, C, H, W)."""
    outputs: Tensor
    """The dense network's outputs (N, classes, ...)."""
    labels: Tensor | None
    """(N,); None if the data has none, or the network no classes."""
    logits: Tensor | None
    """The dense network's logits of calibration images (M, classes); None without these or without classes."""
    world: World
    """The processes that prune."""

    @classmethod
    def of(
        cls,
        model: nn.Module,
        batches: Sequence[Tensor],
        labels: Tensor | None,
        calibration: Sequence[Tensor],
        world: World,
    ) -> HeldOut:
        """Run the dense network.

        Args:
            model: The dense network.
            batches: Held-out images.
            labels: Their classes (N,), if the data has them.
            calibration: Calibration images, in batches, for :meth:`expect`.
            world: The processes that prune.
        """
        outputs = outputs_of(model, batches)
        has_classes = outputs.ndim == 2 and outputs.shape[1] > 1
        logits = outputs_of(model, calibration) if has_classes and calibration else None
        return cls(batches, outputs, labels if has_classes else None, logits, world)

    def compare(self, model: nn.Module) -> Comparison:
        """Compare a network with the dense one."""
        return self.world.first(partial(self._compare, model))

    def errors(
        self, model: nn.Module, alone: Mapping[str, Sequence[tuple[Tensor, Tensor]]], progress: Progress
    ) -> dict[str, float]:
        """Return the noise on logits that each layer alone causes; without classes the error of the outputs.

        Args:
            model: The dense network.
            alone: What pruning a layer alone changes, by layer: tensors of the network, each with its new value. See
                :func:`~sparsegpt_core.pruning.prune_alone`.
            progress: Called after every layer.
        """
        return self.world.first(partial(self._errors, model, alone, progress))

    def expect(self, noise: float | None) -> float:
        """Return the percentage of images that noise on the logits is expected to put into another class.

        The leads of classes are those of all images, of calibration too: pruning does not choose them.

        Args:
            noise: Its variance; None (no classes) changes no class.
        """
        if self.logits is None or noise is None:
            return 0.0
        return expected_disagreement(torch.cat([self.logits, self.outputs]), noise)

    def _compare(self, model: nn.Module) -> Comparison:
        outputs, labels = outputs_of(model, self.batches), self.labels
        drop = None if labels is None else _top1(self.outputs, labels) - _top1(outputs, labels)
        noise = None if self.logits is None else logit_noise(self.outputs, outputs)
        return Comparison(distance(self.outputs, outputs), drop, noise)

    @torch.no_grad()
    def _errors(
        self, model: nn.Module, alone: Mapping[str, Sequence[tuple[Tensor, Tensor]]], progress: Progress
    ) -> dict[str, float]:
        errors = {}
        progress("try layers", 0, len(alone))
        for name, values in alone.items():
            dense = [tensor.clone() for tensor, _ in values]
            for tensor, value in values:
                tensor.copy_(value)
            errors[name] = self._compare(model).error
            for (tensor, _), value in zip(values, dense, strict=True):
                tensor.copy_(value)
            progress("try layers", len(errors), len(alone))
        return errors


def _top1(outputs: Tensor, labels: Tensor) -> float:
    """Return the percentage of images whose class is right."""
    return 100 * float(torch.eq(outputs.argmax(1), labels).double().mean())
