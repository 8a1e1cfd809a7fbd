"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli.framework import choice

__all__ = [
    "TF32",
    "BatchSize",
    "CustomOperators",
    "Device",
    "EngineBatch",
    "EvalData",
    "EvalSamples",
    "Gpu",
    "MemoryLimit",
    "Model",
    "ModelArgs",
    "NumClasses",
    "Pattern",
    "Samples",
    "Verbose",
    "Weights",
    "WeightsKey",
]

Model = Annotated[
    str,
    choice(
        *("simple_cnn", "cifar_cnn", "resnet18_cifar", "vgg16_cifar", "torchvision:", "timm:"),
        metavar="NAME|FILE",
        help="An .onnx file, torchvision:NAME, timm:NAME, package.module:NAME or FILE.py:NAME (which run that code).",
        show_default="the checkpoint's",
    ),
]


ModelArgs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Argument of the function that --model names; may be repeated. A value is a Python literal or a text.",
        show_default=False,
    ),
]


CustomOperators = Annotated[
    list[Path] | None,
    typer.Option(
        "--ort-custom-ops",
        help="Library of custom operators for ONNX Runtime; may be repeated. For an .onnx file; runs its code.",
        show_default=False,
    ),
]


Weights = Annotated[Path | None, typer.Option(help="A .safetensors file, or a .pt file that contains tensors only.")]


WeightsKey = Annotated[
    str | None,
    typer.Option(
        help="Entry of a .pt file with the weights, such as model_ema.",
        show_default="state_dict, model_state_dict or model, else the only one",
    ),
]


EvalData = Annotated[
    str | None,
    typer.Option(metavar="DATA", help="Evaluation images, if --data has no test split."),
]


NumClasses = Annotated[
    int | None,
    typer.Option(min=1, help="Classes of the model.", show_default="those of the checkpoint, else of the data"),
]


Samples = Annotated[
    int | None,
    typer.Option(min=1, help="Calibration images.", show_default="256, or all if there are fewer"),
]


EvalSamples = Annotated[int, typer.Option(min=0, help="Evaluation images, drawn with --seed; 0: all.")]


BatchSize = Annotated[int, typer.Option(min=1, help="Images at a time.")]


Device = Annotated[str, choice("auto", "cpu", "cuda", "mps", metavar="auto|cpu|cuda[:N]|mps", help="Where to compute.")]


def _gpus(incomplete: str) -> list[str]:
    from deploy.roofline import GPUS

    return [name for name in GPUS if name.startswith(incomplete)]


Gpu = Annotated[
    str | None,
    typer.Option(
        metavar="a100|l4|orin-nx|…",
        autocompletion=_gpus,
        help="GPU of the estimate.",
        show_default="this machine's, else a100",
    ),
]


EngineBatch = Annotated[int, typer.Option(min=1, help="Images in one inference of the engine.")]


Pattern = Annotated[str, typer.Option(metavar="N:M|FRACTION", help="N:M, or a fraction of zeros (0.5, 50%).")]


MemoryLimit = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory for pruning, such as 8GiB; on CUDA: of the GPU.",
        show_default="most of the free memory",
    ),
]


Verbose = Annotated[bool, typer.Option("--verbose", help="Show all layers, not the ten worst, and all columns.")]


TF32 = Annotated[bool, typer.Option(help="Let CUDA use TF32: faster and less exact.")]
