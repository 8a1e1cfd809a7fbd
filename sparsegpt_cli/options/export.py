"""The options of ONNX export, as one group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from sparsegpt_cli.framework import choice

if TYPE_CHECKING:
    from export.exporter import ExportSettings

__all__ = ["ExportOptions"]


@dataclass(frozen=True)
class ExportOptions:
    """How to write ONNX files."""

    io_dtype: Annotated[str, choice("fp32", "fp16", help="Type of the inputs and outputs of FP16 files.")] = "fp32"
    opset: Annotated[int, typer.Option(help="ONNX operator set; TensorRT 8.6 reads up to 17.")] = 20
    fold_batch_norm: Annotated[bool, typer.Option(help="Fold batch norms into the convolutions before them.")] = True
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="Make height and width dynamic.")] = False
    ranges: Annotated[
        str,
        choice(
            *("max", "percentile-99.99", "entropy", "mse", "auto"),
            help="INT8 activation ranges; auto: the best by held-out error.",
        ),
    ] = "auto"
    int8_ends: Annotated[
        bool, typer.Option("--int8-ends", help="Also quantise the first convolution and the last layer.")
    ] = False

    def settings(self) -> ExportSettings:
        """Return the settings.

        Raises:
            InputError: A value is out of range.
        """
        from export.exporter import ExportSettings

        return ExportSettings(**vars(self))
