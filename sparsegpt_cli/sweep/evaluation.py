"""Evaluates all networks of a sweep on the same images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from calibration.data import Data, EvaluationSplit, Indices, subset_indices
from calibration.evaluation import distance, named_outputs
from deploy.measure import compare_versions, load_metric
from sparsegpt_cli.jobs.datasets import DataSource
from sparsegpt_core.errors import DataError, InputError
from sparsegpt_core.network import from_arrays
from sparsegpt_core.progress import Progress, silent

__all__ = ["Evaluator", "NamedOutputs"]

NamedOutputs = dict[str, Tensor]
"""All outputs (N, ...) of a network by name."""

_OF_A_NETWORK = ("top1", "top5", "loss")


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
    metric: str | None = None
    """A metric, as ``--metric`` takes it; compared beside accuracy."""

    def outputs(self, model: nn.Module, data: Data, progress: Progress = silent) -> NamedOutputs:
        """Return the network's outputs on the evaluation images, on the CPU.

        Raises:
            DataError: There is no evaluation split.
        """
        split, indices = self.images(data)
        parts: dict[str, list[Tensor]] = {}
        done = 0
        progress("outputs", done, len(indices))
        for images, _ in split.batches(self.batch_size, indices):
            for name, value in named_outputs(model, from_arrays(images)).items():
                parts.setdefault(name, []).append(value)
            done += len(images)
            progress("outputs", done, len(indices))
        return {name: torch.cat(values) for name, values in parts.items()}

    def compare(self, dense: NamedOutputs, sparse: NamedOutputs, data: Data) -> dict[str, Any]:
        """Compare the outputs of two networks.

        Returns:
            ``dense`` and ``sparse`` with ``top1``, ``top5`` and ``loss``, None without labels; the paired
            ``difference`` of top-1; ``disagreement``, ``kl``, ``logit_error``; ``metrics``, None without a metric; and
            the number of images, ``evaluated``. Of a network that is no classifier, ``logit_error`` is that of the
            output with the largest one, and what needs classes is None.

        Raises:
            DataError: There is no evaluation split, or its labels do not fit the outputs.
            InputError: The outputs are not logits and there is no metric, the metric fails, or shapes differ.
            NumericsError: They contain NaN or infinity.
        """
        split, indices = self.images(data)
        # The outputs are known: each "image" is its place in them.
        sessions = {"dense": partial(_rows, dense), "sparse": partial(_rows, sparse)}
        labels = None if split.samples.labels is None else split.samples.labels[indices]
        places = np.split(np.arange(len(indices)), range(self.batch_size, len(indices), self.batch_size))
        batches = ((part, None if labels is None else labels[part]) for part in places)
        metric = None if self.metric is None else load_metric(self.metric)
        compared = compare_versions(sessions, batches, metric, seed=self.seed)
        if compared.accuracy is None and self.metric is None:
            raise InputError("the outputs are not logits", "Give `metric`: docs/metrics.md.")
        if compared.accuracy:
            arms = compared.accuracy.arms
            accuracy = {name: {key: getattr(arm, key) for key in _OF_A_NETWORK} for name, arm in arms.items()}
            difference = arms["sparse"].difference
            first = (next(iter(outputs.values())).double() for outputs in (dense, sparse))
            apart: dict[str, float | None] = {**distance(*first).to_json()}
        else:
            accuracy, difference = dict.fromkeys(("dense", "sparse"), dict.fromkeys(_OF_A_NETWORK)), None
            errors = compared.outputs.relative_errors["sparse"] if compared.outputs else {}
            apart = {"logit_error": max(errors.values()) ** 2, "kl": None, "disagreement": None}
        return {
            **accuracy,
            "difference": None if difference is None else asdict(difference),
            **apart,
            "metrics": compared.to_json()["metrics"],
            "evaluated": len(indices),
        }

    def images(self, data: Data) -> tuple[EvaluationSplit, Indices]:
        """Return the evaluation split and the indices of the evaluation images.

        Raises:
            DataError: There is no evaluation split.
        """
        if data.evaluation is None:
            raise DataError(f"{data.spec} has no evaluation split", "Name one with --eval-data.")
        return data.evaluation, subset_indices(data.evaluation, self.samples or None, self.seed)


def _rows(outputs: NamedOutputs, places: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    return {name: values[places].numpy() for name, values in outputs.items()}
