"""Loads models and their data for jobs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calibration.data import Data
from export.audit import map_model
from export.importing import OnnxNetwork, is_onnx_file, onnx_config
from export.onnxruntime_session import load_operators
from sparsegpt_cli.jobs.datasets import DataSource, open_dataset
from sparsegpt_cli.messages import Messages
from sparsegpt_core.checkpoints import Checkpoint, check_fit, count_classes, load_checkpoint, load_into
from sparsegpt_core.errors import InputError, SparseGPTError
from sparsegpt_core.files import sha256
from sparsegpt_core.named_inputs import InputNames
from sparsegpt_core.network import check_finite, input_names, remove_parametrizations
from sparsegpt_core.zoo import ModelShape, build_model, data_config, parse_arguments, runs_code

__all__ = [
    "LoadedModel",
    "ModelSource",
    "load",
    "load_and_say",
    "load_model",
    "load_with_data",
    "missing_weights",
    "open_images",
    "read_weights",
]


@dataclass(frozen=True)
class ModelSource:
    """A model that can be loaded."""

    spec: str = ""
    """A reference network, ``torchvision:NAME``, ``timm:NAME``, ``module:factory``, ``file.py:factory`` or the path of
    an .onnx file; empty: the checkpoint's model."""
    weights: Path | None = None
    """The checkpoint; None: random weights."""
    num_classes: int | None = None
    """The number of classes; None: the checkpoint's, the factory's or the data set's."""
    arguments: tuple[str, ...] = ()
    """``KEY=VALUE`` arguments of the factory."""
    weights_key: str | None = None
    """The entry of the checkpoint that holds the weights; None: the usual one."""
    custom_operators: tuple[str, ...] = ()
    """Libraries of custom operators for an ONNX file."""


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights and their origin."""

    module: nn.Module
    spec: str
    image: tuple[int, ...]
    """The shape (C, H, W) of its images; empty for inputs by name."""
    weights: Path | None
    weights_sha256: str | None
    metadata: dict[str, Any] = field(default_factory=dict)
    weights_key: str = ""
    """The entry of the file that holds the weights; empty if it holds nothing else."""

    def build_metadata(self) -> dict[str, Any]:
        """Return the metadata that is needed to build the model again, next to its name and images."""
        return {key: self.metadata[key] for key in ("num_classes", "model_args") if key in self.metadata}

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

    Raises:
        DataError: The data cannot be read.
        ModelError: The model or its weights cannot be loaded, or do not fit each other.
    """
    checkpoint = read_weights(model.weights, messages, model.weights_key) if model.weights else None
    metadata = checkpoint.metadata if checkpoint else {}
    open_for = partial(open_images, model.spec, data, metadata, messages)
    return load_with_data(model, checkpoint, open_for, messages, seed)


def load_with_data(
    model: ModelSource,
    checkpoint: Checkpoint | None,
    open_for: Callable[[InputNames | None], Data],
    messages: Messages,
    seed: int = 0,
) -> tuple[LoadedModel, Data]:
    """Build a model, load its weights and open its data.

    The user's own networks come before the data, since only they know their inputs. All others take images, and their
    number of channels and classes may be that of the data.

    Args:
        model: The model.
        checkpoint: Its checkpoint, if there is one.
        open_for: Opens the data for the network's inputs; None for images.
        messages: Takes messages.
        seed: Seed of random weights.

    Raises:
        SparseGPTError: As for :func:`load_model`, or the data cannot be read.
    """
    spec = _model_to_build(model, checkpoint.metadata if checkpoint else {})
    if runs_code(spec) or is_onnx_file(spec):
        loaded = load_model(model, checkpoint, (), messages, seed=seed)
        opened = open_for(input_names(loaded.module))
        return replace(loaded, image=opened.image_shape), opened
    opened = open_for(None)
    return load_model(model, checkpoint, opened.image_shape, messages, opened.num_classes, seed), opened


def open_images(
    spec: str, data: DataSource, metadata: Mapping[str, Any], messages: Messages, inputs: InputNames | None = None
) -> Data:
    """Open the data of a model.

    Normalisation and size are those of the data source, else of the checkpoint's metadata, else of the data set.
    Folders of images have none of their own: theirs are what torchvision or timm use for the model, else ImageNet's,
    and a message says so.

    Args:
        spec: The model's name; empty: the one in ``metadata``.
        data: The data set.
        metadata: The checkpoint's metadata; empty without a checkpoint.
        messages: Takes the message.
        inputs: The network's inputs; None for images.

    Raises:
        DataError: The data cannot be read, or lacks an input.
    """
    spec = spec or metadata.get("model", "")
    if is_onnx_file(spec):
        return open_dataset(data, {**onnx_config(Path(spec)), **metadata}, messages.say, inputs)
    if not (data.spec or metadata.get("data", "")).startswith("imagefolder:"):
        return open_dataset(data, metadata, messages.say, inputs)
    own = data_config(spec)
    # The message below has the normalisation; evaluation data may be code that runs.
    opened = open_dataset(data, {**own, **metadata}, messages.say if data.evaluation else lambda _: None, inputs)
    if not {"mean", "std", "image"} <= metadata.keys() and not (data.mean and data.std and data.image_size):
        size = "×".join(map(str, opened.image_shape[1:]))
        mean, std = (",".join(f"{value:g}" for value in values) for values in (opened.mean, opened.std))
        whose = f"{spec}'s" if own else "ImageNet's"
        messages.say(f"images of {size}, mean {mean}, std {std} (default: {whose}): --image-size, --mean, --std")
    return opened


def read_weights(path: Path, messages: Messages, key: str | None = None) -> Checkpoint:
    """Read a checkpoint. A message says which weights are taken of a file with several, such as averaged ones.

    Raises:
        ModelError: The file cannot be read, or has no such entry.
    """
    checkpoint = load_checkpoint(path, key)
    if checkpoint.other_keys and key is None:
        others = " or ".join(checkpoint.other_keys)
        messages.say(f"{path.name}: using the weights in {checkpoint.key}; --weights-key chooses {others}")
    return checkpoint


def load_and_say(module: nn.Module, checkpoint: Checkpoint, messages: Messages) -> None:
    """Load weights into a network. A message names the prefixes that their names do not need.

    Raises:
        ModelError: The weights do not fit.
        NumericsError: A number is too large for the network's precision.
    """
    if prefixes := load_into(module, checkpoint.state):
        messages.say(f"the weights' names fit without {' and '.join(prefixes)}")


def load_model(
    options: ModelSource,
    checkpoint: Checkpoint | None,
    image: tuple[int, ...],
    messages: Messages,
    data_classes: int | None = None,
    seed: int = 0,
) -> LoadedModel:
    """Build a model and load its weights. Without a checkpoint they are random, and a warning says so.

    The number of classes is that of ``options``, else of the checkpoint's metadata, else of its weights, else the
    factory's own (torchvision, timm) or the data set's (reference networks). Tensors that parametrizations compute are
    replaced by their values.

    Raises:
        ModelError: There is no such model, or the weights do not fit.
        InputError: Neither ``options`` nor the checkpoint names a model, or only the checkpoint names code to run.
    """
    metadata = dict(checkpoint.metadata) if checkpoint else {}
    spec = _model_to_build(options, metadata)
    if is_onnx_file(spec):
        return _load_onnx(options, Path(spec), checkpoint, image, messages)
    if options.custom_operators:
        raise InputError("`ort_custom_ops` is for an .onnx file", "Leave it out, or give `model` the file.")
    arguments = parse_arguments(options.arguments)
    if runs_code(spec):
        messages.say(f"importing and running {spec}")
    classes = options.num_classes or metadata.get("num_classes")
    if checkpoint and classes is None:
        classes = count_classes(spec, image, checkpoint.state, arguments)
        if classes:
            messages.say(f"the weights have {classes} classes")
    if classes is None and ":" not in spec:
        classes = data_classes
    shape = ModelShape(image, classes)
    if checkpoint and ":" not in spec:
        with torch.device("meta"):  # the sizes in a file's metadata may exceed the memory
            check_fit(build_model(spec, shape), checkpoint.state)
    torch.manual_seed(seed)
    module = build_model(spec, shape, arguments).float().eval()
    if checkpoint:
        load_and_say(module, checkpoint, messages)
    else:
        messages.warn(missing_weights(spec))
    if computed := remove_parametrizations(module):
        messages.say(f"parametrizations are replaced by their values: {', '.join(computed)}")
    if classes:
        metadata["num_classes"] = classes
    if options.arguments:
        metadata["model_args"] = list(options.arguments)
    sha256, key = (checkpoint.sha256, checkpoint.key) if checkpoint else (None, "")
    return LoadedModel(module, spec, image, options.weights, sha256, metadata, key)


def _load_onnx(
    options: ModelSource, path: Path, checkpoint: Checkpoint | None, image: tuple[int, ...], messages: Messages
) -> LoadedModel:
    """Read a network from its ONNX file; the weights are those of the file, or of a checkpoint made from it."""
    if options.arguments or options.num_classes:
        raise InputError(f"{path} is complete: it takes no arguments and no number of classes", "Leave them out.")
    model = map_model(path)
    for library in options.custom_operators:
        load_operators(library)
    try:
        network = OnnxNetwork(model)
        check_finite(network.state_dict())
    except SparseGPTError as error:
        raise type(error)(f"{path.name}: {error}", error.hint) from error
    metadata = dict(checkpoint.metadata) if checkpoint else {}
    if network.batch_size:
        messages.say(f"{path.name} takes batches of {network.batch_size}")
    if checkpoint:
        load_and_say(network, checkpoint, messages)
    weights, digest = (options.weights, checkpoint.sha256) if checkpoint else (path, sha256(path))
    return LoadedModel(network, path.name, image, weights, digest, metadata, checkpoint.key if checkpoint else "")


def _model_to_build(options: ModelSource, metadata: Mapping[str, Any]) -> str:
    """Return the model that is named, with its arguments. A file must not make code run, nor choose its arguments."""
    recorded, arguments = metadata.get("model") or "", metadata.get("model_args", [])
    spec = options.spec or recorded
    if not spec:
        raise InputError("no model is named", "Give --model, or weights that record their model.")
    flags = shlex.join(["--model", spec, *(part for each in arguments for part in ("--model-args", each))])
    if not options.spec and (runs_code(spec) or arguments):
        what = "is code" if runs_code(spec) else "takes arguments"
        raise InputError(
            f"the checkpoint names {spec}, which {what}, and a file must not make code run",
            f"Give {flags} if you know that code.",
        )
    if spec == recorded and arguments and not options.arguments:
        raise InputError(f"the checkpoint was made with arguments of {spec}", f"Give {flags}.")
    return spec


def missing_weights(spec: str) -> str:
    """Return the warning for a model without a checkpoint."""
    if runs_code(spec):
        return f"no `weights`: the network keeps those of {spec}, which are random unless it loads some"
    return f"no `weights`: {spec} has random weights"
