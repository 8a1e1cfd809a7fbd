"""The options of ONNX export, as one group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from export.exporter import ExportSettings

__all__ = ["ExportOptions"]


@dataclass(frozen=True)
class ExportOptions:
    """What the command line says about the ONNX files."""

    io_dtype: Annotated[str, typer.Option(help="What FP16 files take and give: fp32 or fp16.")] = "fp32"
    opset: Annotated[int, typer.Option(help="Version of ONNX's operators; TensorRT 8.6 reads up to 17.")] = 20
    fold_batch_norm: Annotated[bool, typer.Option(help="Fold batch norms into the convolutions before them.")] = True
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="Leave height and width open.")] = False
    ranges: Annotated[
        str,
        typer.Option(help="INT8 activation ranges: auto (by held-out error), max, percentile-99.99, entropy, mse."),
    ] = "auto"
    int8_ends: Annotated[
        bool, typer.Option("--int8-ends", help="Quantise the first convolution and the last layer too.")
    ] = False

    def settings(self) -> ExportSettings:
        """What the options mean.

        Raises:
            InputError: A value is out of range.
        """
        from export.exporter import ExportSettings

        return ExportSettings(**vars(self))
