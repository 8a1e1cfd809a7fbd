"""Loads models and their data for jobs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calibration.data import Data
from sparsegpt_cli.jobs.datasets import DataSource, open_dataset
from sparsegpt_cli.messages import Messages
from sparsegpt_core.checkpoints import Checkpoint, check_fit, load_checkpoint, load_into
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.zoo import ModelShape, build_model

__all__ = ["LoadedModel", "ModelSource", "load", "load_model"]

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class ModelSource:
    """A model that can be loaded."""

    spec: str = ""
    """A reference network, ``torchvision:NAME``, ``timm:NAME`` or ``module:factory``; empty: the checkpoint's model."""
    weights: Path | None = None
    """The checkpoint; None: random weights."""
    num_classes: int | None = None
    """The number of classes; None: the checkpoint's, the factory's or the data set's."""


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights and their origin."""

    module: nn.Module
    spec: str
    image: tuple[int, int, int]
    weights: Path | None
    weights_sha256: str | None
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Describe the model for a report, without folders of this machine."""
        return {
            "spec": self.spec,
            "image": list(self.image),
            "weights": None if self.weights is None else self.weights.name,
            "weights_sha256": self.weights_sha256,
            "parameters": sum(parameter.numel() for parameter in self.module.parameters()),
        }


def load(model: ModelSource, data: DataSource, messages: Messages, seed: int = 0) -> tuple[LoadedModel, Data]:
    """Load a model and open its data.

    Normalisation is that of the data source, else of the checkpoint's metadata, else of the data set.

    Raises:
        DataError: The data cannot be read.
        ModelError: The model or its weights cannot be loaded, or do not fit each other.
    """
    checkpoint = load_checkpoint(model.weights) if model.weights else None
    opened = open_dataset(data, checkpoint.metadata if checkpoint else {})
    return load_model(model, checkpoint, opened.image_shape, messages, opened.num_classes, seed), opened


def load_model(
    options: ModelSource,
    checkpoint: Checkpoint | None,
    image: tuple[int, int, int],
    messages: Messages,
    data_classes: int | None = None,
    seed: int = 0,
) -> LoadedModel:
    """Build a model and load its weights. Without a checkpoint they are random, and a warning says so.

    The number of classes is that of ``options``, else of the checkpoint's metadata, else the factory's own
    (torchvision, timm) or the data set's (reference networks).

    Raises:
        ModelError: There is no such model, the weights do not fit, or the model takes more than images.
        InputError: Neither ``options`` nor the checkpoint names a model, or only the checkpoint names code to run.
    """
    metadata = checkpoint.metadata if checkpoint else {}
    spec = options.spec or metadata.get("model") or ""
    if not spec:
        raise InputError("no model is named", "Give --model, or weights that record their model.")
    runs_code = spec.rpartition(":")[0] not in ("", "torchvision", "timm")
    if runs_code and not options.spec:
        raise InputError(
            f"the checkpoint names {spec}, which is code, and a file must not make code run",
            f"Give --model {spec} if you know that code.",
        )
    classes = options.num_classes or metadata.get("num_classes") or (None if ":" in spec else data_classes)
    if runs_code:
        messages.say(f"importing and running {spec}")
    shape = ModelShape(image, classes)
    if checkpoint and ":" not in spec:
        with torch.device("meta"):  # the sizes in a file's metadata may exceed the memory
            check_fit(build_model(spec, shape), checkpoint.state)
    torch.manual_seed(seed)
    module = build_model(spec, shape).float().eval()
    _check_inputs(spec, module)
    if checkpoint:
        load_into(module, checkpoint.state)
    else:
        messages.warn(f"no --weights: {spec} has random weights")
    return LoadedModel(module, spec, image, options.weights, checkpoint.sha256 if checkpoint else None, metadata)


def _check_inputs(spec: str, module: nn.Module) -> None:
    """Refuse a network with several inputs, since data sets give images only."""
    parameters = inspect.signature(module.forward).parameters.values()
    needed = [each.name for each in parameters if each.default is each.empty and each.kind not in _VARIADIC]
    if len(needed) > 1:
        raise ModelError(
            f"{spec} takes {len(needed)} inputs ({', '.join(needed)}), and --data gives images only",
            "From Python, prune_model takes tuples as batches. Or name a factory whose model makes the other inputs.",
        )
