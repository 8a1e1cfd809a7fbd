"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "TF32",
    "BatchSize",
    "CustomOperators",
    "Device",
    "EvalData",
    "EvalSamples",
    "Gpu",
    "MemoryLimit",
    "Model",
    "ModelArgs",
    "NumClasses",
    "Pattern",
    "Samples",
    "Weights",
    "WeightsKey",
]

Model = Annotated[
    str,
    typer.Option(
        help="simple_cnn, cifar_cnn, resnet18_cifar, vgg16_cifar, torchvision:NAME, timm:NAME, an "
        ".onnx file, or package.module:NAME or FILE.py:NAME (which run that code): a function, a class or a network. "
        "Default: what the checkpoint names.",
        show_default=False,
    ),
]


ModelArgs = Annotated[
    list[str] | None,
    typer.Option(
        help="KEY=VALUE for the function that --model names, may be repeated. A value is a Python literal or a text.",
        show_default=False,
    ),
]


CustomOperators = Annotated[
    list[Path] | None,
    typer.Option(
        "--ort-custom-ops",
        help="A library of custom operators for ONNX Runtime, may be repeated. For an .onnx file; runs its code.",
        show_default=False,
    ),
]


Weights = Annotated[Path | None, typer.Option(help="A .safetensors file, or a .pt file that contains tensors only.")]


WeightsKey = Annotated[
    str | None,
    typer.Option(
        help="The entry of a .pt file with the weights, such as model_ema. Default: state_dict, model_state_dict or "
        "model, else the only one.",
        show_default=False,
    ),
]


EvalData = Annotated[
    str | None,
    typer.Option(help="Evaluation images, if --data has no test split: npz:PATH, package.module:loader, ..."),
]


NumClasses = Annotated[
    int | None, typer.Option(min=1, help="Classes of the model. Default: those of the checkpoint, else of the data.")
]


Samples = Annotated[
    int | None,
    typer.Option(min=1, help="Calibration images from the training split. Default: 256, or all if there are fewer."),
]


EvalSamples = Annotated[int, typer.Option(min=0, help="Evaluation images, drawn with --seed; 0: all.")]


BatchSize = Annotated[int, typer.Option(min=1, help="Images at a time.")]


Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]


Gpu = Annotated[
    str | None,
    typer.Option(
        help="The GPU to estimate for, such as a100, l4, rtx3060 or orin-nx. Default: this machine's, else a100.",
        show_default=False,
    ),
]


Pattern = Annotated[str, typer.Option(help="N:M along the input channels, or a fraction of zeros (0.5, 50%).")]


MemoryLimit = Annotated[
    str | None,
    typer.Option(help="Memory for pruning, such as 8GiB; on CUDA: of the GPU. Default: most of the free memory."),
]


TF32 = Annotated[bool, typer.Option(help="Let CUDA use TF32: faster and less exact.")]
