"""Opens data sets for jobs. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.data import Data, EvaluationSplit, open_data, subset_indices

__all__ = ["DataSource", "EvaluationBatches", "open_dataset"]


@dataclass(frozen=True)
class DataSource:
    """A data set, and how its images are prepared. None stands for the model's value, else the data set's."""

    spec: str = ""
    """The name of a data set, ``imagefolder:PATH``, ``letterbox:PATH`` or ``npz:PATH``; empty: the data that the
    model's metadata records."""
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


def open_dataset(source: DataSource, metadata: Mapping[str, Any]) -> Data:
    """Open a data set.

    Name, normalisation, size and channels are those of the source, else of the model's metadata, else of the data set.

    Args:
        source: The data set.
        metadata: The metadata of a checkpoint or an ONNX file; empty if there is no model.

    Raises:
        DataError: Neither the source nor the metadata names data, or it cannot be read.
    """
    return open_data(
        source.spec or metadata.get("data", ""),
        data_root=source.root,
        eval_data=source.evaluation,
        mean=source.mean or metadata.get("mean"),
        std=source.std or metadata.get("std"),
        image_size=source.image_size,
        channels=source.channels,
        like=_shape(metadata.get("image")),
    )


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


def _shape(value: Any) -> list[int] | None:
    """Return the image shape of a model's metadata, or None if it is not a shape."""
    valid = isinstance(value, list) and len(value) == 3 and all(isinstance(size, int) and size > 0 for size in value)
    return value if valid else None
