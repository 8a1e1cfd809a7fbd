"""On what, and how, all networks of a sweep are judged."""

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
    """The evaluation images: ``samples`` of them, drawn with ``seed``, or 0 for all; and where networks run."""

    data: DataSource
    samples: int = 0
    seed: int = 0
    batch_size: int = 64
    device: str = "cpu"

    def outputs(self, model: nn.Module, data: Data, progress: Progress = silent) -> Tensor:
        """Return the network's outputs (N, classes) on the evaluation images, on the CPU, in float64.

        Raises:
            DataError: There is no evaluation split.
        """
        split, indices = self.images(data)
        found: list[Tensor] = []
        progress("outputs", 0, len(indices))
        for images, _ in split.batches(self.batch_size, indices):
            found.append(outputs_of(model, [torch.from_numpy(images)]))
            progress("outputs", sum(map(len, found)), len(indices))
        return torch.cat(found)

    def compare(self, dense: Tensor, sparse: Tensor, data: Data) -> dict[str, Any]:
        """Compare the outputs (N, classes) of two networks.

        Returns:
            ``dense`` and ``sparse`` with ``top1``, ``top5`` and ``loss``, None without labels; top-1's paired
            ``difference``; ``disagreement``, ``kl``, ``logit_error``, and how many images were ``evaluated``.

        Raises:
            DataError: There is no evaluation split, or its labels do not fit the outputs.
            InputError: The outputs are no logits, or differ in shape.
            NumericsError: They hold NaN or infinity.
        """
        arms = {"dense": dense.numpy(), "sparse": sparse.numpy()}
        # The outputs are at hand: the numbers of the images stand for the images.
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
        """Return the evaluation split, and which of its images are taken.

        Raises:
            DataError: There is no evaluation split.
        """
        if data.evaluation is None:
            raise DataError(f"{data.spec} has no evaluation split to judge on", "Name one with --eval-data.")
        return data.evaluation, subset_indices(data.evaluation, self.samples or None, self.seed)
