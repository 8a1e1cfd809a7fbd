"""Evaluates all networks of a sweep on the same images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from calibration.data import Data, EvaluationSplit, Indices, subset_indices
from calibration.evaluation import distance, outputs_of
from deploy.measure import compare_accuracy
from sparsegpt_cli.jobs.datasets import DataSource
from sparsegpt_core.errors import DataError
from sparsegpt_core.progress import Progress, silent

__all__ = ["Evaluator"]


@dataclass(frozen=True)
class Evaluator:
    """The evaluation images, and the device on which networks run.

    Example:
        >>> from calibration.data import open_data
        >>> from sparsegpt_cli.jobs.datasets import DataSource
        >>> split, indices = Evaluator(DataSource("digits"), samples=100).images(open_data("digits"))
        >>> len(split), len(indices)
        (599, 100)
    """

    data: DataSource
    samples: int = 0
    """Evaluation images; 0 takes all."""
    seed: int = 0
    """Seed of the draw of evaluation images."""
    batch_size: int = 64
    """Images for each forward pass."""
    device: str = "cpu"
    """The device on which networks run."""

    def outputs(self, model: nn.Module, data: Data, progress: Progress = silent) -> Tensor:
        """Return the network's outputs (N, classes) on the evaluation images, on the CPU, in float64.

        Raises:
            DataError: There is no evaluation split.
        """
        split, indices = self.images(data)
        outputs: list[Tensor] = []
        progress("outputs", 0, len(indices))
        for images, _ in split.batches(self.batch_size, indices):
            outputs.append(outputs_of(model, [torch.from_numpy(images)]))
            progress("outputs", sum(map(len, outputs)), len(indices))
        return torch.cat(outputs)

    def compare(self, dense: Tensor, sparse: Tensor, data: Data) -> dict[str, Any]:
        """Compare the outputs (N, classes) of two networks.

        Returns:
            ``dense`` and ``sparse`` with ``top1``, ``top5`` and ``loss``, None without labels; the paired
            ``difference`` of top-1; ``disagreement``, ``kl``, ``logit_error``; and the number of images, ``evaluated``.

        Raises:
            DataError: There is no evaluation split, or its labels do not fit the outputs.
            InputError: The outputs are not logits, or their shapes differ.
            NumericsError: They contain NaN or infinity.
        """
        arms = {"dense": dense.numpy(), "sparse": sparse.numpy()}
        # The outputs are known: each "image" is its index into them.
        runs = {name: logits.__getitem__ for name, logits in arms.items()}
        split, indices = self.images(data)
        labels = None if split.labels is None else split.labels[indices]
        report = compare_accuracy(runs, [(np.arange(len(dense)), labels)])
        difference = report.arms["sparse"].difference
        return {
            **{name: {key: getattr(arm, key) for key in ("top1", "top5", "loss")} for name, arm in report.arms.items()},
            "difference": None if difference is None else asdict(difference),
            **distance(dense, sparse).to_json(),
            "evaluated": len(dense),
        }

    def images(self, data: Data) -> tuple[EvaluationSplit, Indices]:
        """Return the evaluation split and the indices of the evaluation images.

        Raises:
            DataError: There is no evaluation split.
        """
        if data.evaluation is None:
            raise DataError(f"{data.spec} has no evaluation split", "Name one with --eval-data.")
        return data.evaluation, subset_indices(data.evaluation, self.samples or None, self.seed)
