"""Classification accuracy of a torch model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from calibration.data import Batch, EvaluationSplit, TrainingSplit, subset_indices
from sparsegpt_core.errors import DataError, ModelError, NumericsError
from sparsegpt_core.execution import find_device, full_precision, run_in_halves
from sparsegpt_core.network import channels_last, eval_mode, from_arrays, tensors_of
from sparsegpt_core.progress import Progress, silent

__all__ = ["Evaluation", "evaluate", "logits_and_labels", "score"]


@dataclass(frozen=True)
class Evaluation:
    """The accuracy of a model."""

    top1: float
    """Samples whose largest logit is that of their class, in percent."""
    top5: float | None
    """Samples with their class among the five largest logits, in percent; None for five classes or fewer."""
    loss: float
    """Mean cross-entropy, in nats."""
    samples: int
    """Number of samples."""

    def to_json(self) -> dict[str, float | None]:
        """Return the fields by name."""
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
    """Measure a model in eval mode. Its training flags are restored, but it stays on ``device``.

    Args:
        model: Images (N, C, H, W) to logits (N, classes).
        split: Samples with labels.
        batch_size: Samples per forward pass.
        device: Where to compute, such as ``cpu`` or ``cuda:0``; the model is moved there.
        limit: Use this many samples: those of :func:`~calibration.data.subset_indices`. None uses all.
        seed: Chooses the subset.
        progress: Called with ``"evaluate"`` and counts of samples.

    Raises:
        DataError: The split has no labels, or a label that the model has no output for.
        ModelError: The model fails on the images, or does not return logits (N, classes).
        NumericsError: A logit is NaN.
        InputError: The device cannot be used.

    Example:
        >>> from calibration.data import open_data
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> evaluate(model, open_data("digits").evaluation, limit=100).samples
        100
    """
    indices = subset_indices(split, limit, seed)
    return score(model, split.batches(batch_size, indices), len(indices), find_device(device), progress)


def score(
    model: nn.Module, batches: Iterable[Batch], total: int, device: torch.device, progress: Progress = silent
) -> Evaluation:
    """Measure a model on batches, without TF32; :func:`evaluate` does so on a split.

    Args:
        model: Images (N, C, H, W) to logits (N, classes). It is moved to ``device``.
        batches: Images (N, C, H, W) with labels (N,).
        total: Number of samples in all batches, for ``progress``.
        device: Where to compute.
        progress: Called with ``"evaluate"`` and counts of samples.

    Raises:
        DataError: A batch has no labels, or a label that the model has no output for.
        ModelError: The model fails on the images, or does not return logits (N, classes).
        NumericsError: A logit is NaN.

    Example:
        >>> import numpy as np
        >>> images, labels = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), np.array([0, 1, 1])
        >>> round(score(nn.Flatten(), [(images, labels)], 3, torch.device("cpu")).top1, 1)
        66.7
    """
    model.to(device)
    done, loss, classes = 0, 0.0, 0
    ranks = []
    progress("evaluate", 0, total)
    with eval_mode(model), torch.inference_mode(), full_precision(tf32=False):
        for images, labels in batches:
            if labels is None:
                raise DataError("the data has no labels to measure accuracy with", "Give labelled `eval_data`.")
            logits, truth = logits_and_labels(model, from_arrays(images), torch.from_numpy(labels), device)
            logits, classes = logits.float(), logits.shape[1]
            if logits.isnan().any():
                raise NumericsError("the model's outputs contain NaN", "Check its weights, `mean` and `std`.")
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
        labels: (N,) on the CPU, so that a label above the number of outputs cannot crash a CUDA device.
        device: Where to compute.

    Returns:
        The logits (N, classes) and the labels, both on ``device``.

    Raises:
        ModelError: The model fails on the images, or does not return logits (N, classes).
        DataError: The model has no output for a label.

    Example:
        >>> images, labels = torch.zeros(2, 3, 1, 1), torch.tensor([0, 2])
        >>> logits, truth = logits_and_labels(nn.Flatten(), images, labels, torch.device("cpu"))
        >>> logits.shape, truth.tolist()
        (torch.Size([2, 3]), [0, 2])
    """
    shape = tuple(images.shape)

    def run(part: Tensor) -> Any:
        return model(*tensors_of(channels_last(part.to(device))))

    try:
        # A training step keeps its batch size, which is a setting.
        logits = run(images) if torch.is_grad_enabled() else run_in_halves(run, images)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ModelError(
            f"the model fails on images {shape}: {str(error).splitlines()[0]}", "Use data of the model's image shape."
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        raise ModelError(f"the model does not return logits (N, classes) for images {shape}")
    if int(labels.max()) >= logits.shape[1]:
        raise DataError(
            f"label {int(labels.max())}, but the model has {logits.shape[1]} outputs", "Use the model's own data."
        )
    return logits, labels.to(device)


def _ranks(logits: Tensor, truth: Tensor) -> Tensor:
    """The rank of the true class among the logits (N, classes), 0 for the largest. Of equals the first class wins."""
    true_logit = logits.gather(1, truth[:, None])  # (N, 1)
    earlier = torch.arange(logits.shape[1], device=logits.device) < truth[:, None]
    return ((logits > true_logit) | ((logits == true_logit) & earlier)).sum(dim=1)  # (N, classes) -> (N,)
