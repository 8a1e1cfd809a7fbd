"""``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import command
from sparsegpt_cli.terminal import Console

__all__ = ["export"]

_EXPORT = o.ExportOptions()


@command
def export(
    console: Console,
    weights: Annotated[Path, typer.Option(help="A .safetensors file, or a .pt with nothing but tensors.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    model: o.Model = "",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    options: o.ExportOptions = _EXPORT,
    data: Annotated[
        str | None, typer.Option(help="Compare with PyTorch on images of this set, not on noise; INT8 needs it.")
    ] = None,
    data_root: o.DataRoot = None,
    image: Annotated[str | None, typer.Option(help="CxHxW, where the checkpoint does not note it.")] = None,
    samples: o.Samples = None,
    num_classes: o.NumClasses = None,
) -> None:
    """Export a checkpoint to ONNX; a pruned one must still obey its pattern in the file."""
    import torch

    from calibration.sampling import calibration_batches
    from export.exporter import TOLERANCE, Exporter
    from sparsegpt_cli.jobs.datasets import DataSource, open_options
    from sparsegpt_cli.jobs.int8_graphs import Int8Quantiser
    from sparsegpt_cli.jobs.models import ModelSource, load_model
    from sparsegpt_core.checkpoints import load_checkpoint, load_int8
    from sparsegpt_core.errors import InputError
    from sparsegpt_core.patterns import parse_pattern

    o.require_suffix(out, ".onnx", weights, data)
    if precision not in TOLERANCE:
        raise InputError(f"unknown precision '{precision}'", f"Use {', '.join(TOLERANCE)}.")
    settings = options.settings()
    checkpoint = load_checkpoint(weights)
    noted = checkpoint.metadata
    shape = _image(image) if image else tuple(noted.get("image", ()))
    if len(shape) != 3:
        raise InputError("the checkpoint does not note the image shape", "Give --image, for example 3x224x224.")
    loaded = load_model(ModelSource(model, weights, num_classes), checkpoint, shape, console, seed=console.seed)
    if data:
        opened = open_options(DataSource(data, data_root), noted)
        batches = calibration_batches(opened.training, samples or min(256, len(opened.training)), 32, console.seed)
        images, quantisation = batches[0], Int8Quantiser(batches, load_int8(weights))
    else:
        quantisation = None
        images = torch.randn(8, *shape, generator=torch.Generator().manual_seed(console.seed))
    with console.progress() as progress:
        progress(f"export {precision}", 0, 1)
        exporter = Exporter(
            loaded.module,
            images,
            {**noted, "model": loaded.spec, "image": list(shape)},
            parse_pattern(noted.get("pattern", "2:4")),
            noted.get("pruned", ()),
            settings,
            quantisation,
            progress,
        )
        file = exporter.write(out, precision)
        progress(f"export {precision}", 1, 1)
    for warning in file.warnings:
        console.warn(warning)
    sparse = file.audit.sparse_layers if file.audit else None
    content = {"out": str(out), "precision": precision, "parity": file.parity.to_json(), "sparse_layers": sparse}
    lines = [f"{out}: {precision}, differs from PyTorch by {file.parity.relative:.1e} of its logits"]
    if sparse is not None:
        lines.append(f"{sparse} layers are {noted.get('pattern', '2:4')}; sparsegpt-trt verify {out} lists them")
    console.result(content, lines)


def _image(text: str) -> tuple[int, ...]:
    from sparsegpt_core.errors import InputError

    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise InputError(f"cannot read the image shape '{text}'", "Give CxHxW, for example 3x224x224.")
    return tuple(int(part) for part in parts)
