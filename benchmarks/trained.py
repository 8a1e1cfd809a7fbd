"""A network that ``sparsegpt-trt train --data fashion-mnist`` wrote, with images to evaluate it on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from calibration.data import TrainingSplit, open_data, subset_indices
from calibration.evaluation import outputs_of
from sparsegpt_core.checkpoints import load_checkpoint, load_into
from sparsegpt_core.zoo import ModelShape, build_model

__all__ = ["DATA_ROOT", "Trained", "load_trained"]

DATA_ROOT = Path("/usr/share/datasets")
_BATCH = 100


@dataclass(frozen=True)
class Trained:
    """The network, its training split, and evaluation images with labels (N) and the network's outputs (N, classes)."""

    name: str
    sha256: str
    model: nn.Module
    training: TrainingSplit
    images: list[Tensor]
    labels: Tensor
    outputs: Tensor


def load_trained(path: Path, data_root: Path, judged: int | None) -> Trained:
    """Read a checkpoint, and ``judged`` evaluation images (None: all) that do not depend on the checkpoint."""
    checkpoint = load_checkpoint(path)
    noted = checkpoint.metadata
    data = open_data("fashion-mnist", data_root, mean=noted["mean"], std=noted["std"], like=noted["image"])
    model = build_model(noted["model"], ModelShape(tuple(noted["image"]), noted["num_classes"])).eval()
    load_into(model, checkpoint.state)
    split = data.evaluation
    if split is None or split.labels is None:
        sys.exit("error: the data has no labelled evaluation split")
    indices = subset_indices(split, judged, 0)
    images = [torch.from_numpy(batch) for batch, _ in split.batches(_BATCH, indices)]
    labels = torch.from_numpy(split.labels[indices])
    return Trained(noted["model"], checkpoint.sha256, model, data.training, images, labels, outputs_of(model, images))
