"""How well a torch model classifies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calibration.data import Batch, EvaluationSplit, TrainingSplit, subset_indices
from sparsegpt_core.errors import DataError, ModelError, NumericsError
from sparsegpt_core.execution import find_device, run_in_halves
from sparsegpt_core.network import eval_mode
from sparsegpt_core.progress import Progress, silent

__all__ = ["Evaluation", "evaluate", "logits_and_labels", "score"]


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in percent, mean cross-entropy in nats; ``top5`` is None for five classes or fewer."""

    top1: float
    top5: float | None
    loss: float
    samples: int

    def to_json(self) -> dict[str, float | None]:
        """Return the fields as a JSON object."""
        return asdict(self)


def evaluate(
    model: nn.Module,
    split: EvaluationSplit | TrainingSplit,
    *,
    batch_size: int = 256,
    device: str = "cpu",
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Measure a model in evaluation mode; its training flags are restored, its device is not.

    Args:
        model: Images (N, C, H, W) to logits (N, classes).
        split: Labelled samples.
        batch_size: Samples per forward pass.
        device: Where to compute, such as ``cpu`` or ``cuda:0``; the model is moved there.
        limit: Use a seeded subset of this many samples, the one :func:`~calibration.data.subset_indices` gives.
        seed: Chooses the subset.
        progress: Called with ``"evaluate"`` and counts of samples.

    Raises:
        DataError: The split has no labels, or labels the model has no output for.
        ModelError: The model does not take the images, or gives no logits (N, classes).
        NumericsError: A logit is NaN.
        InputError: The device is not there.
    """
    indices = subset_indices(split, limit, seed)
    return score(model, split.batches(batch_size, indices), len(indices), find_device(device), progress)


def score(
    model: nn.Module, batches: Iterable[Batch], total: int, device: torch.device, progress: Progress = silent
) -> Evaluation:
    """Measure a model on ``batches`` of ``total`` labelled samples; see :func:`evaluate`."""
    model.to(device)
    done, loss, classes = 0, 0.0, 0
    ranks = []
    progress("evaluate", 0, total)
    with eval_mode(model), torch.inference_mode():
        for images, labels in batches:
            if labels is None:
                raise DataError("the data has no labels, so there is no accuracy", "Give labelled --eval-data.")
            logits, truth = logits_and_labels(model, torch.from_numpy(images), torch.from_numpy(labels), device)
            logits, classes = logits.float(), logits.shape[1]
            if logits.isnan().any():
                raise NumericsError("the model's outputs hold NaN", "Check its weights, and --mean and --std.")
            loss += F.cross_entropy(logits, truth, reduction="sum").item()
            ranks.append(_ranks(logits, truth).cpu())
            done += len(labels)
            progress("evaluate", done, total)
    rank = torch.cat(ranks)
    top5 = 100 * (rank < 5).double().mean().item() if classes > 5 else None
    return Evaluation(100 * (rank < 1).double().mean().item(), top5, loss / done, done)


def logits_and_labels(model: nn.Module, images: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Run a model on one batch.

    Args:
        model: A model on ``device``.
        images: (N, C, H, W).
        labels: (N,), still on the CPU: a label beyond the outputs would take a CUDA device down.
        device: Where to compute.

    Returns:
        The logits (N, classes) and the labels, both on ``device``.

    Raises:
        ModelError: The model does not take the images, or gives no logits (N, classes).
        DataError: A label has no output.
    """
    shape = tuple(images.shape)

    def run(part: Tensor) -> Any:
        return model(part.to(device, memory_format=torch.channels_last))

    try:
        # A training step is not cut: its batch is a setting.
        logits = run(images) if torch.is_grad_enabled() else run_in_halves(run, images)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ModelError(
            f"the model fails on images {shape}: {str(error).splitlines()[0]}", "Use data of the model's image shape."
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        raise ModelError(f"the model gives no logits (N, classes) for images {shape}")
    if int(labels.max()) >= logits.shape[1]:
        raise DataError(
            f"label {int(labels.max())}, but the model has {logits.shape[1]} outputs", "Use the model's own data."
        )
    return logits, labels.to(device)


def _ranks(logits: Tensor, truth: Tensor) -> Tensor:
    """The place of the true class among the logits (N, classes), 0 for the largest; of equals the first wins."""
    mine = logits.gather(1, truth[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < truth[:, None]
    return ((logits > mine) | ((logits == mine) & before)).sum(dim=1)
