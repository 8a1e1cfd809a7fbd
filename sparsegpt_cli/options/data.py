"""The options of a data set, as one group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsegpt_cli.framework import choice
from sparsegpt_core.errors import InputError

if TYPE_CHECKING:
    from sparsegpt_cli.jobs.datasets import DataSource

__all__ = ["DataOptions", "ExportDataOptions"]

_SETS = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "imagefolder:", "letterbox:", "npz:")
_NORMALISATION = "a number, or one for each channel with commas"
_NORMALISATION_DEFAULT = "the model's, else the data's"


@dataclass(frozen=True)
class DataOptions:
    """The data set and how its images are prepared.

    Example:
        >>> DataOptions("mnist", mean="0.5", image_size=32).source().mean
        (0.5,)
    """

    data: Annotated[
        str,
        choice(
            *_SETS,
            metavar="DATA",
            help="digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder:PATH, letterbox:PATH, npz:PATH or "
            "package.module:loader (which runs that code).",
            show_default="that of the model's file",
        ),
    ] = ""
    data_root: Annotated[Path | None, typer.Option(help="Folder that contains the data set's files.")] = None
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help=f"Subtracted from the images: {_NORMALISATION}.",
            show_default=_NORMALISATION_DEFAULT,
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help=f"Divides the images after that: {_NORMALISATION}.",
            show_default=_NORMALISATION_DEFAULT,
        ),
    ] = None
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Height and width in pixels; images are cropped or get a border.",
        ),
    ] = None
    channels: Annotated[int | None, typer.Option(min=1, help="3 repeats the grey images of a named set.")] = None

    def flags(self) -> list[str]:
        """Return the flags that name the data, for another command. How images are prepared is in a model's metadata.

        Example:
            >>> DataOptions("mnist", Path("sets")).flags()
            ['--data', 'mnist', '--data-root', 'sets']
        """
        given = {"--data": self.data, "--data-root": self.data_root}
        return [text for flag, value in given.items() if value for text in (flag, str(value))]

    def source(self, eval_data: str | None = None) -> DataSource:
        """Return the data set that the options name, with ``eval_data`` for its evaluation split.

        Raises:
            InputError: A mean or standard deviation is not a number.
        """
        from sparsegpt_cli.jobs.datasets import DataSource

        return DataSource(
            self.data,
            self.data_root,
            eval_data,
            _numbers("--mean", self.mean),
            _numbers("--std", self.std),
            self.image_size,
            self.channels,
        )


@dataclass(frozen=True)
class ExportDataOptions(DataOptions):
    """The data set of an export, which can do without one."""

    data: Annotated[
        str,
        choice(
            *_SETS,
            metavar="DATA",
            help="Compare with PyTorch on images of this data set; INT8 is calibrated on them.",
            show_default="noise; with INT8 that of the model's file",
        ),
    ] = ""


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{flag} '{text}' is not a list of numbers", "For example 0.485,0.456,0.406.") from None
