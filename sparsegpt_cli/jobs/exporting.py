"""Export a checkpoint to ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from calibration.sampling import calibration_batches
from deploy.graph import random_inputs
from export.exporter import TOLERANCE, ExportedFile, Exporter, ExportSettings
from export.importing import is_onnx_file, onnx_config
from sparsegpt_cli.jobs.datasets import DataSource
from sparsegpt_cli.jobs.int8_graphs import Int8Quantiser
from sparsegpt_cli.jobs.job import shipped_metadata
from sparsegpt_cli.jobs.models import ModelSource, load_model, load_with_data, open_images, read_weights
from sparsegpt_cli.messages import Messages
from sparsegpt_core.checkpoints import load_int8
from sparsegpt_core.errors import InputError
from sparsegpt_core.network import from_arrays
from sparsegpt_core.patterns import Pattern, parse_pattern

__all__ = ["export_checkpoint"]

_DEFAULT_SAMPLES, _BATCH, _NOISE_IMAGES = 256, 32, 8


def export_checkpoint(
    model: ModelSource,
    out: Path,
    precision: str,
    settings: ExportSettings,
    messages: Messages,
    *,
    data: DataSource | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> tuple[ExportedFile, Pattern]:
    """Export a checkpoint; a pruned one must still obey its pattern in the file.

    Args:
        model: The model, with its checkpoint; or an ONNX file.
        out: The .onnx file to write.
        precision: ``fp32``, ``fp16`` or ``int8``.
        settings: How to write it.
        messages: Takes messages and progress.
        data: Images for the comparison with PyTorch and for INT8 ranges; None: noise, and no INT8.
        image_size: Height and width of the model's images; None: those that the checkpoint records.
        channels: Channels of the model's images; None: those that the checkpoint records.
        samples: Images for INT8 ranges; None: 256, or all if there are fewer.
        seed: Seed of the images or the noise.

    Returns:
        The file, and the pattern of its pruned layers.

    Raises:
        InputError: The precision is unknown, or the image shape is not known.
        SparseGPTError: The checkpoint or the data cannot be read, or the file differs from PyTorch.
    """
    if precision not in TOLERANCE:
        raise InputError(f"unknown precision '{precision}'", f"Use {', '.join(TOLERANCE)}.")
    checkpoint = read_weights(model.weights, messages, model.weights_key) if model.weights else None
    if checkpoint:
        metadata = dict(checkpoint.metadata)
    elif is_onnx_file(model.spec):
        metadata = onnx_config(Path(model.spec))
    else:
        raise InputError("there is nothing to export", "Give `weights`, or an .onnx file as `model`.")
    metadata |= _image(metadata.get("image"), image_size, channels)
    quantiser = None
    if data:
        known = dict(metadata)
        open_for = partial(open_images, model.spec, data, known, messages)
        loaded, opened = load_with_data(model, checkpoint, open_for, messages, seed)
        metadata |= opened.metadata()
        if not (data.mean or data.std):
            metadata |= {key: known[key] for key in ("mean", "std") if key in known}
        count = samples or min(_DEFAULT_SAMPLES, len(opened.training))
        batches = calibration_batches(opened.training, count, _BATCH, seed)
        images = batches[0]
        quantiser = Int8Quantiser(batches, load_int8(model.weights) if model.weights else {})
    elif "inputs" in metadata:
        shapes = {each["name"]: (_NOISE_IMAGES, *each["shape"]) for each in metadata["inputs"]}
        types = {each["name"]: np.dtype(each["dtype"]) for each in metadata["inputs"]}
        images = from_arrays(random_inputs(shapes, types, seed))
        loaded = load_model(model, checkpoint, (), messages, seed=seed)
    elif "image" in metadata:
        images = torch.randn(_NOISE_IMAGES, *metadata["image"], generator=torch.Generator().manual_seed(seed))
        loaded = load_model(model, checkpoint, tuple(metadata["image"]), messages, seed=seed)
    else:
        raise InputError(
            "the checkpoint does not record the image shape", "Give `image_size=224` and `channels=3`, or `data`."
        )
    pattern = parse_pattern(metadata.get("pattern", "2:4"))
    metadata |= {
        "model": loaded.spec,
        "weights_sha256": loaded.weights_sha256,
        "precision": precision,
        **loaded.build_metadata(),
    }
    with messages.progress() as progress:
        progress(f"export {precision}", 0, 1)
        pruned = metadata.get("pruned", ())
        shipped = shipped_metadata(metadata)
        exporter = Exporter(loaded.module, images, shipped, pattern, pruned, settings, quantiser, progress)
        file = exporter.write(out, precision)
        progress(f"export {precision}", 1, 1)
    return file, pattern


def _image(recorded: Sequence[int] | None, size: int | None, channels: int | None) -> dict[str, list[int]]:
    """Return the shape (C, H, W) of the images as metadata, where it is known."""
    if channels is None and recorded:
        channels = recorded[0]
    shape = [size, size] if size else list(recorded[1:]) if recorded else []
    return {"image": [channels, *shape]} if channels and shape else {}
