"""The checkpoints of a sweep: their identity, their networks and their dense outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from calibration.data import Data
from export.importing import is_onnx_file
from sparsegpt_cli.jobs.datasets import DataSource, fingerprint, open_dataset
from sparsegpt_cli.jobs.job import check_network, code_identity
from sparsegpt_cli.jobs.models import LoadedModel, ModelSource, load_with_data, open_images
from sparsegpt_cli.messages import SILENT, Messages
from sparsegpt_cli.sweep.evaluation import Evaluator, NamedOutputs
from sparsegpt_cli.sweep.grid import checkpoint_name, slug
from sparsegpt_core import __version__
from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
from sparsegpt_core.errors import InputError, ModelError, NumericsError
from sparsegpt_core.files import json_digest
from sparsegpt_core.progress import Progress, silent

__all__ = ["SweptCheckpoint", "load_network", "open_checkpoint"]


@dataclass(frozen=True)
class SweptCheckpoint:
    """A checkpoint with everything that its results depend on."""

    weights: Path
    """The file."""
    model: str
    """The model's name, as ``--model`` takes it."""
    training_images: int
    """Images of the training split, from which calibration draws."""
    identity: dict[str, Any]
    """Digests of the weights and the data, the tool's version, and more. It changes when results may change."""

    @property
    def name(self) -> str:
        """The checkpoint's name in tables."""
        return checkpoint_name(self.weights)

    def dense_outputs_path(self, folder: Path) -> Path:
        """Return the file of the dense outputs."""
        return folder / f"{slug(self.name)}_{json_digest(self.identity)[:10]}.safetensors"

    def load(self, evaluator: Evaluator) -> tuple[LoadedModel, Data]:
        """Load the network and its data, as :func:`load_network` does.

        Raises:
            SparseGPTError: The checkpoint or the data cannot be read, or the file has changed.
        """
        model, data = load_network(self.weights, evaluator.data, (self.model,))
        if model.weights_sha256 != self.identity["checkpoint_sha256"]:
            raise InputError(f"{self.weights} was changed while the sweep ran", "Start the sweep again.")
        return model, data

    def check(self, evaluator: Evaluator, messages: Messages) -> None:
        """Warn of a network that does not fit its data, as ``prune-export`` does.

        Raises:
            SparseGPTError: The checkpoint or the data cannot be read, or a label has no output.
        """
        model, data = self.load(evaluator)
        check_network(
            model, data, torch.device(evaluator.device), messages, samples=evaluator.samples, seed=evaluator.seed
        )

    def write_dense_outputs(self, evaluator: Evaluator, folder: Path, progress: Progress = silent) -> None:
        """Compute the dense outputs and write them to a file.

        Raises:
            SparseGPTError: The network does not fit its data, its outputs cannot be compared, or the metric fails.
        """
        model, data = self.load(evaluator)
        stage = f"dense outputs of {self.name}"
        module = model.module.to(evaluator.device)
        outputs = evaluator.outputs(module, data, lambda _, done, total: progress(stage, done, total))
        evaluator.compare(outputs, outputs, data)  # raises before any cell is computed
        about = {"sha256": _digest_of(outputs), "names": list(outputs)}
        save_checkpoint(self.dense_outputs_path(folder), outputs, about)

    def read_dense_outputs(self, folder: Path) -> NamedOutputs | None:
        """Return the dense outputs; None if the file is missing or damaged."""
        try:
            kept = load_checkpoint(self.dense_outputs_path(folder))
        except (ModelError, NumericsError):
            return None
        names = kept.metadata.get("names", [])
        outputs = {name: kept.state[name] for name in names if name in kept.state}
        return outputs if kept.metadata.get("sha256") == _digest_of(outputs) else None


def open_checkpoint(
    weights: Path, evaluator: Evaluator, factories: Sequence[str], messages: Messages
) -> SweptCheckpoint:
    """Read a checkpoint and its data. Of the code that checkpoints may name, only ``factories`` run.

    Raises:
        ModelError: The checkpoint cannot be read or does not name its model.
        InputError: It names code that is not one of ``factories``.
        DataError: The data cannot be read.
    """
    model, data = load_network(weights, evaluator.data, tuple(factories), messages)
    split, indices = evaluator.images(data)
    identity = {
        "tool_version": __version__,
        "checkpoint_sha256": model.weights_sha256,
        "model": model.spec,
        "data": data.spec,
        "data_sha256": fingerprint(data),
        **data.metadata(),
        "evaluated": len(indices),
        "eval_seed": evaluator.seed if len(indices) < len(split) else 0,
        "device": torch.device(evaluator.device).type,
    }
    if evaluator.metric:
        identity |= {"metric": evaluator.metric, **code_identity(evaluator.metric), "eval_seed": evaluator.seed}
    return SweptCheckpoint(weights, model.spec, len(data.training), identity)


@lru_cache(maxsize=1)
def load_network(
    weights: Path, data: DataSource, factories: tuple[str, ...] = (), messages: Messages = SILENT
) -> tuple[LoadedModel, Data]:
    """Load the network of a checkpoint or an ONNX file, and its data. The last result is cached.

    Raises:
        ModelError: The checkpoint cannot be read, does not name its model, or does not fit it.
        InputError: It names code that is not one of ``factories``.
        DataError: The data cannot be read.
    """
    if is_onnx_file(weights.name):
        source = ModelSource(str(weights))
        return load_with_data(source, None, partial(open_images, source.spec, data, {}, messages), messages)
    checkpoint = load_checkpoint(weights)
    named = checkpoint.metadata.get("model")
    if named is None:
        raise ModelError(f"{weights} does not name its model", "Use checkpoints of train or finetune.")
    is_known = named in factories
    arguments = tuple(checkpoint.metadata.get("model_args", ())) if is_known else ()
    model = ModelSource(named if is_known else "", weights, arguments=arguments)
    return load_with_data(model, checkpoint, partial(open_dataset, data, checkpoint.metadata, messages.say), messages)


def _digest_of(outputs: NamedOutputs) -> str:
    digest = hashlib.sha256()
    for name, values in outputs.items():
        digest.update(name.encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
