"""``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import choice, command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.terminal import Console, explanation_lines, latency_table, prediction_lines

__all__ = ["predict"]


@command
def predict(
    console: Console,
    *,
    model: Annotated[Path, typer.Argument(help="Dense .onnx file.", show_default=False)],
    shapes: Annotated[
        str | None,
        typer.Option(
            metavar="[NAME:]MIN/OPT/MAX", help="Batches, or with NAME shapes such as 1x3x224x224; OPT is predicted."
        ),
    ] = None,
    measure: Annotated[
        bool | None,
        typer.Option(
            "--measure/--estimate",
            help="Time the engines of a pruned copy, or estimate from shapes.",
            show_default="measure if there are a GPU and TensorRT, and the file is FP16 or INT8",
        ),
    ] = None,
    gpu: o.Gpu = None,
    precision: Annotated[
        str | None,
        choice(
            *("fp16", "int8"),
            help="Precision of the estimate.",
            show_default="what the file says; FP32 counts as fp16",
            rich_help_panel="Engine",
        ),
    ] = None,
    timing: o.TimingOptions,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result, which prune --profile reads.")] = None,
    force: o.Force = False,
    verbose: o.Verbose = False,
) -> None:
    """Predict the speed-up of 2:4 before pruning.

    Needs the dense model only.
    """
    from deploy.graph import parse_shapes
    from deploy.predict import MeasuredPrediction
    from sparsegpt_cli.jobs.predicting import predict_file
    from sparsegpt_core.files import write_json

    wanted = parse_shapes(shapes) if shapes else None
    if out:
        o.require_free(out, model, force=force)
    with console.progress() as progress:
        found, how = predict_file(
            model, wanted, measure, timing.settings(), console.seed, progress, console.say, gpu, precision
        )
    console.say(how)
    content = found.to_json()
    if out:
        write_json(out, content)
    lines: list[Any]
    if isinstance(found, MeasuredPrediction):
        for warning in found.measured.warnings:
            console.warn(warning)
        lines = [
            latency_table(content, content["runtime"]),
            *explanation_lines(found.measured.explanation, verbose),
        ]
    else:
        lines = prediction_lines(found, verbose)
    profile = ("--profile", out) if out else ()
    following = next_step("prune-export", "--model", model, "--data", "DATA", *profile, "--out", model.with_suffix(""))
    console.result(content, [*lines, found.verdict, following])
