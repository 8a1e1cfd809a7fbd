"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "TF32",
    "BatchSize",
    "Channels",
    "Data",
    "DataRoot",
    "Device",
    "EvalData",
    "EvalSamples",
    "ImageSize",
    "Mean",
    "MemoryLimit",
    "Model",
    "NumClasses",
    "Pattern",
    "Samples",
    "Std",
    "Weights",
]

Model = Annotated[
    str,
    typer.Option(
        help="simple_cnn, cifar_cnn, resnet18_cifar, vgg16_cifar, torchvision:NAME, timm:NAME or "
        "package.module:factory (which runs that code). Default: what the checkpoint names.",
        show_default=False,
    ),
]


Weights = Annotated[Path | None, typer.Option(help="A .safetensors file, or a .pt with nothing but tensors.")]


Data = Annotated[
    str, typer.Option(help="digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder:PATH or npz:PATH.")
]


DataRoot = Annotated[Path | None, typer.Option(help="The folder that holds the data set.")]


EvalData = Annotated[
    str | None, typer.Option(help="Evaluation data where --data has no test split: npz:PATH, imagefolder:PATH, ...")
]


Mean = Annotated[str | None, typer.Option(help="Normalisation: one number or one for each channel, with commas.")]


Std = Annotated[str | None, typer.Option(help="Normalisation: one number or one for each channel, with commas.")]


NumClasses = Annotated[int | None, typer.Option(min=1, help="Classes of the model, where nothing else tells.")]


ImageSize = Annotated[
    int | None,
    typer.Option(min=1, help="Height and width: imagefolder: images are cropped, named sets get black edges."),
]


Channels = Annotated[int | None, typer.Option(min=1, help="3 repeats a named set's grey images.")]


Samples = Annotated[
    int | None, typer.Option(min=1, help="Calibration images, from the training split. Default: 256, or all there are.")
]


EvalSamples = Annotated[int, typer.Option(min=0, help="Evaluation images, drawn with the seed; 0 takes all.")]


BatchSize = Annotated[int, typer.Option(min=1, help="Images at a time.")]


Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]


Pattern = Annotated[str, typer.Option(help="N:M along the input channels, or a fraction of zeros (0.5, 50%).")]


MemoryLimit = Annotated[
    str | None,
    typer.Option(help="Memory for pruning, such as 8GiB (on CUDA: for tensors). Default: most of what is free."),
]


TF32 = Annotated[bool, typer.Option(help="Let CUDA round to TF32 in statistics and solves.")]
