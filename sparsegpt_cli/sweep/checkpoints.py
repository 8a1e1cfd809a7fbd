"""The checkpoints of a sweep: what identifies them, and what they put out before they are pruned."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calibration.data import Data
from sparsegpt_cli.jobs.datasets import DataSource, open_options
from sparsegpt_cli.jobs.models import LoadedModel, ModelSource, load_model
from sparsegpt_cli.messages import SILENT, Messages
from sparsegpt_cli.sweep.evaluation import Evaluator
from sparsegpt_cli.sweep.grid import checkpoint_name, slug
from sparsegpt_core import __version__
from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
from sparsegpt_core.errors import InputError, ModelError, NumericsError
from sparsegpt_core.files import json_digest
from sparsegpt_core.progress import Progress, silent

__all__ = ["Subject", "load_subject", "open_subject"]

_PROBES = 64  # images of each split that stand for all of them


@dataclass(frozen=True)
class Subject:
    """A checkpoint, and all that its results depend on: other data or another version make it another subject."""

    weights: Path
    model: str
    training_images: int
    identity: dict[str, Any]

    @property
    def name(self) -> str:
        """What tables call it."""
        return checkpoint_name(self.weights)

    def reference(self, folder: Path) -> Path:
        """Where its dense outputs are kept."""
        return folder / f"{slug(self.name)}_{json_digest(self.identity)[:10]}.safetensors"

    def load(self, judge: Evaluator) -> tuple[LoadedModel, Data]:
        """Load the network and its data, as :func:`load_subject` does.

        Raises:
            SparseGPTError: The checkpoint or the data cannot be read, or is another one by now.
        """
        model, data = load_subject(self.weights, judge.data, (self.model,))
        if model.weights_sha256 != self.identity["checkpoint_sha256"]:
            raise InputError(f"{self.weights} was changed while the sweep ran", "Start the sweep again.")
        return model, data

    def keep_reference(self, judge: Evaluator, folder: Path, progress: Progress = silent) -> None:
        """Compute the dense outputs and keep them.

        Raises:
            SparseGPTError: The network and its data do not fit, its outputs are no logits or hold NaN.
        """
        model, data = self.load(judge)
        stage = f"dense outputs of {self.name}"
        module = model.module.to(judge.device)
        outputs = judge.outputs(module, data, lambda _, done, total: progress(stage, done, total))
        judge.compare(outputs, outputs, data)  # what does not fit shows before any cell
        save_checkpoint(self.reference(folder), {"outputs": outputs}, {"sha256": _digest_of(outputs)})

    def read_reference(self, folder: Path) -> Tensor | None:
        """Return the dense outputs (N, classes), None where they were not kept, or are damaged."""
        try:
            kept = load_checkpoint(self.reference(folder))
        except (ModelError, NumericsError):
            return None
        outputs = kept.state.get("outputs", torch.empty(0))
        return outputs if kept.metadata.get("sha256") == _digest_of(outputs) else None


def open_subject(weights: Path, judge: Evaluator, factories: Sequence[str], messages: Messages) -> Subject:
    """Read a checkpoint and its data; only ``factories`` are run where it names code.

    Raises:
        ModelError: It cannot be read or does not name its model.
        InputError: It names code that is none of ``factories``.
        DataError: The data cannot be read.
    """
    model, data = load_subject(weights, judge.data, tuple(factories), messages)
    split, indices = judge.images(data)
    identity = {
        "tool_version": __version__,
        "checkpoint_sha256": model.weights_sha256,
        "model": model.spec,
        "image": list(model.image),
        "data": data.spec,
        "data_sha256": _fingerprint(data),
        "mean": list(data.mean),
        "std": list(data.std),
        "evaluated": len(indices),
        "eval_seed": judge.seed if len(indices) < len(split) else 0,
        "device": torch.device(judge.device).type,
    }
    return Subject(weights, model.spec, len(data.training), identity)


@lru_cache(maxsize=1)
def load_subject(
    weights: Path, data: DataSource, factories: tuple[str, ...] = (), messages: Messages = SILENT
) -> tuple[LoadedModel, Data]:
    """Load a checkpoint with its data; the same objects again where the last call was for the same.

    Raises:
        ModelError: The checkpoint cannot be read, does not name its model, or does not fit it.
        InputError: It names code that is none of ``factories``.
        DataError: The data cannot be read.
    """
    checkpoint = load_checkpoint(weights)
    named = checkpoint.metadata.get("model")
    if named is None:
        raise ModelError(f"{weights} does not note what model it is of", "Use checkpoints of train or finetune.")
    opened = open_options(data, checkpoint.metadata)
    model = ModelSource(named if named in factories else "", weights)
    return load_model(model, checkpoint, opened.image_shape, messages, opened.num_classes), opened


def _fingerprint(data: Data) -> str:
    """A digest of the numbers of images, all labels, and some images of both splits."""
    found = hashlib.sha256()
    for split in (data.training, data.evaluation):
        if split is not None:
            probes = np.unique(np.linspace(0, len(split) - 1, _PROBES).astype(np.int64))
            for part in (split.samples.images.read(probes), split.labels, np.int64(len(split))):
                found.update(b"" if part is None else part.tobytes())
    return found.hexdigest()


def _digest_of(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
