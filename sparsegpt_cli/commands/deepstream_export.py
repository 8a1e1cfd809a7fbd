"""``deepstream-export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import command
from sparsegpt_cli.messages import with_flags
from sparsegpt_cli.terminal import Console

__all__ = ["deepstream_export"]


@command
def deepstream_export(
    console: Console,
    model: Annotated[Path, typer.Argument(help="A .plan with its sidecar, or an .onnx file.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write.", show_default="config_infer_primary.txt next to the model"),
    ] = None,
    engine_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images in one inference of the engine.",
            show_default="the plan's maximum, the fixed batch, or 1",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="File with the class names in one line, separated by semicolons.")
    ] = None,
    force: o.Force = False,
) -> None:
    """Write a DeepStream configuration for a model.

    It is for the Gst-nvinfer element. Mean and standard deviation are those that the .onnx file records; a plan's
    sidecar says which file that is.
    """
    from sparsegpt_cli.jobs.deepstream import write_deepstream_config

    path = out or model.with_name("config_infer_primary.txt")
    o.require_free(path, model, labels, force=force)
    config = write_deepstream_config(model, path, engine_batch, labels)
    for warning in config.warnings:
        console.warn(with_flags(warning))
    console.result(
        {"config": str(path), "properties": dict(config.properties), "warnings": list(config.warnings)},
        [
            str(path),
            *(f"  {key}={value}" for key, value in config.properties.items()),
            f"next: nvinfer config-file-path={path} in a pipeline of DeepStream",
        ],
    )
