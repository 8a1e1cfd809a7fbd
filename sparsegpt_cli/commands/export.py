"""``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import choice, command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.terminal import Console

__all__ = ["export"]


@command
def export(
    console: Console,
    *,
    weights: o.Weights = None,
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    model: o.Model = "",
    model_args: o.ModelArgs = None,
    weights_key: o.WeightsKey = None,
    precision: Annotated[str, choice("fp32", "fp16", "int8", help="Precision of the file.")] = "fp32",
    options: o.ExportOptions,
    data: o.ExportDataOptions,
    samples: o.Samples = None,
    num_classes: o.NumClasses = None,
    ort_custom_ops: o.CustomOperators = None,
    force: o.Force = False,
) -> None:
    """Export a checkpoint to ONNX, or an .onnx file again.

    The file is compared with the network. An .onnx file may be exported in another precision, or with a checkpoint's
    weights. The pruned layers of a pruned checkpoint must still obey its pattern in the file.
    """
    from sparsegpt_cli.jobs.exporting import export_checkpoint
    from sparsegpt_cli.jobs.models import ModelSource

    o.require_suffix(out, ".onnx", weights or (Path(model) if model else None), data.data, force=force)
    file, pattern = export_checkpoint(
        ModelSource(
            model, weights, num_classes, tuple(model_args or ()), weights_key, tuple(map(str, ort_custom_ops or ()))
        ),
        out,
        precision,
        options.settings(),
        console,
        data=data.source() if data.data or precision == "int8" else None,
        image_size=data.image_size,
        channels=data.channels,
        samples=samples,
        seed=console.seed,
    )
    for warning in file.warnings:
        console.warn(warning)
    for note in file.notes:
        console.say(note)
    sparse = file.audit.sparse_layers if file.audit else None
    content = {"out": str(out), "precision": precision, "parity": file.parity.to_json(), "sparse_layers": sparse}
    difference = f"differs from the network by {file.parity.relative:.1e} of its logits"
    lines = [f"{out}: {precision}, {difference if file.parity.outputs_vary else 'not compared: constant outputs'}"]
    if sparse is not None:
        lines.append(f"{sparse} layers are {pattern}; sparsegpt-trt verify {out} lists them")
    if precision != "fp32":
        lines.append(next_step("build", out))
    elif sparse:  # there are no sparse kernels for FP32
        half = out.with_suffix(".fp16.onnx")
        source = ("--weights", weights) if weights else ("--model", model)
        lines.append(next_step("export", *source, "--precision", "fp16", "--out", half))
    else:
        lines.append(next_step("predict", out))
    console.result(content, lines)
