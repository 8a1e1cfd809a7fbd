"""Opens data sets for jobs. Loads no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.data import Data, EvaluationSplit, names_code, open_data, subset_indices
from sparsegpt_core.errors import DataError, InputError
from sparsegpt_core.named_inputs import InputNames

__all__ = ["DataSource", "EvaluationBatches", "fingerprint", "open_dataset"]

_MAX_FINGERPRINT_IMAGES = 64  # of each split, evenly spaced


@dataclass(frozen=True)
class DataSource:
    """A data set, and how its images are prepared. None stands for the model's value, else the data set's."""

    spec: str = ""
    """The name of a data set, ``imagefolder:PATH``, ``letterbox:PATH``, ``npz:PATH`` or ``package.module:loader``,
    which runs code; empty: the data that the model's metadata records."""
    root: Path | None = None
    """The folder that contains the data set's files."""
    evaluation: str | None = None
    """The data set of the evaluation split; None: that of ``spec``."""
    mean: tuple[float, ...] | None = None
    """Subtracted from the images: one value, or one for each channel."""
    std: tuple[float, ...] | None = None
    """Divides the images after that: one value, or one for each channel."""
    image_size: int | None = None
    """Height and width in pixels."""
    channels: int | None = None
    """3 repeats the grey images of a named set."""


def open_dataset(
    source: DataSource,
    metadata: Mapping[str, Any],
    say: Callable[[str], None] = lambda _: None,
    inputs: InputNames | None = None,
) -> Data:
    """Open a data set.

    Name, normalisation, size and channels are those of the source, else of the model's metadata, else of the data set.
    Images of a loader are taken as they come: the metadata's normalisation does not apply to them.

    Args:
        source: The data set.
        metadata: The metadata of a checkpoint or an ONNX file; empty if there is no model.
        say: Called with the code that runs, and with the normalisation.
        inputs: The network's inputs; None for images.

    Raises:
        DataError: Neither the source nor the metadata names data, or it cannot be read or lacks an input.
        InputError: Only the metadata names code, or the code cannot be imported.
    """
    spec = source.spec or metadata.get("data", "")
    if names_code(spec) and not source.spec:
        raise InputError(
            f"the model's file records the data {spec}, which is code, and a file must not make code run",
            f"Give `data={spec}` if you know that code.",
        )
    for each in (spec, source.evaluation or ""):
        if names_code(each):
            say(f"importing and running {each}")
    own = {} if names_code(spec) else metadata
    try:
        data = open_data(
            spec,
            data_root=source.root,
            eval_data=source.evaluation,
            mean=source.mean or own.get("mean"),
            std=source.std or own.get("std"),
            image_size=source.image_size,
            channels=source.channels,
            like=_shape(metadata.get("image")),
            inputs=inputs,
            channels_last=own.get("channels_last") is True,
        )
    except DataError as error:
        if source.spec or not spec:
            raise
        hint = error.hint or "Give `data` the place where it is now."
        raise DataError(f"{error} (the model's file records the data {spec})", hint) from error
    for note in data.notes:
        say(note)
    origin = "" if source.spec else ", as the model records"
    if data.inputs:
        say(f"data {spec}{origin}: {data.inputs}, taken as they are")
        return data
    say(
        f"data {spec}{origin}: mean {_numbers(data.mean)} "
        f"({_origin(source.mean, own.get('mean'))}), std {_numbers(data.std)} ({_origin(source.std, own.get('std'))})"
    )
    return data


def fingerprint(data: Data) -> str:
    """Return a digest of the numbers of images, all labels, and some images of both splits."""
    digest = hashlib.sha256()
    for split in (data.training, data.evaluation):
        if split is not None:
            indices = np.unique(np.linspace(0, len(split) - 1, _MAX_FINGERPRINT_IMAGES).astype(np.int64))
            for part in (split.samples.images.read(indices), split.labels, np.int64(len(split))):
                digest.update(b"" if part is None else part.tobytes())
    return digest.hexdigest()


class EvaluationBatches:
    """A seeded subset of an evaluation split in batches, with a length for progress.

    Args:
        split: The evaluation split.
        samples: Number of samples; 0: all.
        batch_size: Samples per batch.
        seed: Seed of the choice of samples.
    """

    def __init__(self, split: EvaluationSplit, samples: int, batch_size: int, seed: int) -> None:
        self._split, self._batch_size = split, batch_size
        self._indices = subset_indices(split, samples or None, seed)

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch_size)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._split.batches(self._batch_size, self._indices))


def _numbers(values: tuple[float, ...]) -> str:
    """Return one number if all channels have the same."""
    return ", ".join(f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values))


def _origin(given: object, recorded: object) -> str:
    return "as given" if given else "the model's" if recorded else "the default of the data"


def _shape(value: Any) -> list[int] | None:
    """Return the image shape of a model's metadata, or None if it is not a shape."""
    valid = isinstance(value, list) and len(value) == 3 and all(isinstance(size, int) and size > 0 for size in value)
    return value if valid else None
