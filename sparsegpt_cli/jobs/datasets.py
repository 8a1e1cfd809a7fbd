"""From the data options of a command to a data set. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.data import Data, EvaluationSplit, open_data, subset_indices

__all__ = ["DataSource", "EvaluationBatches", "open_options"]


@dataclass(frozen=True)
class DataSource:
    """A data set, and how its images are prepared; None leaves a value to the model, then to the data set."""

    spec: str
    root: Path | None = None
    evaluation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    channels: int | None = None


def open_options(options: DataSource, noted: Mapping[str, Any]) -> Data:
    """Open a data set.

    Normalisation is what the options say, else what the model notes, else the data set's own; so are size and channels.

    Args:
        options: From the command line.
        noted: What a checkpoint or an ONNX file says of itself.

    Raises:
        DataError: The data cannot be read.
    """
    return open_data(
        options.spec,
        data_root=options.root,
        eval_data=options.evaluation,
        mean=options.mean or noted.get("mean"),
        std=options.std or noted.get("std"),
        image_size=options.image_size,
        channels=options.channels,
        like=_shape(noted.get("image")),
    )


class EvaluationBatches:
    """A seeded subset of an evaluation split in batches, with a length for progress.

    Args:
        split: What to evaluate on.
        samples: How many; 0 takes all.
        batch_size: Samples at a time.
        seed: Of the draw.
    """

    def __init__(self, split: EvaluationSplit, samples: int, batch_size: int, seed: int) -> None:
        self._split, self._batch_size = split, batch_size
        self._indices = subset_indices(split, samples or None, seed)

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch_size)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._split.batches(self._batch_size, self._indices))


def _shape(noted: Any) -> list[int] | None:
    """What a model notes as its images' shape, if it is one."""
    whole = isinstance(noted, list) and len(noted) == 3 and all(isinstance(size, int) and size > 0 for size in noted)
    return noted if whole else None
