"""Options that several commands share, and the decorator that gives every command its common ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsegpt_cli.console import Console
from sparsegpt_core.errors import InputError

__all__ = [
    "TF32",
    "Alpha",
    "BatchSize",
    "Damping",
    "Data",
    "DataRoot",
    "Device",
    "EvalData",
    "EvalSamples",
    "Exclude",
    "ImageSize",
    "Include",
    "Mean",
    "MemoryLimit",
    "Method",
    "Model",
    "NumClasses",
    "Pattern",
    "Positions",
    "Refit",
    "Samples",
    "Std",
    "Weights",
    "command",
    "require_suffix",
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
ImageSize = Annotated[int | None, typer.Option(min=1, help="Height and width to crop imagefolder: images to.")]
Samples = Annotated[
    int | None, typer.Option(min=1, help="Calibration images, from the training split. Default: 256, or all there are.")
]
EvalSamples = Annotated[int, typer.Option(min=0, help="Evaluation images, drawn with the seed; 0 takes all.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at a time.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Pattern = Annotated[str, typer.Option(help="N:M along the input channels, or a fraction of zeros (0.5, 50%).")]
Damping = Annotated[float, typer.Option(min=0, help="λ of the Hessian, relative to its mean diagonal.")]
Method = Annotated[str, typer.Option(help="sparsegpt, or magnitude as the baseline.")]
Alpha = Annotated[
    float,
    typer.Option(min=0, max=1, help="How far to aim at the dense network's outputs; 0 looks at the pruned one alone."),
]
Refit = Annotated[bool, typer.Option(help="Solve for the kept weights exactly once the mask is known.")]
Positions = Annotated[
    float, typer.Option(min=0, help="Positions to look at for each column of a layer, where that is cheaper; 0: all.")
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(help="Memory for pruning, such as 8GiB (on CUDA: for tensors). Default: most of what is free."),
]
TF32 = Annotated[bool, typer.Option(help="Let CUDA round to TF32 in statistics and solves.")]
Include = Annotated[
    list[str] | None, typer.Option(help="Prune layers of this glob although they are first, last or excluded.")
]
Exclude = Annotated[list[str] | None, typer.Option(help="Leave layers of this glob dense.")]

_COMMON: dict[str, tuple[Any, Any]] = {
    "as_json": (Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")], False),
    "quiet": (Annotated[bool, typer.Option("--quiet", help="No progress, no messages.")], False),
    "seed": (Annotated[int, typer.Option(min=0, help="For everything drawn at random.")], 0),
}


def require_suffix(path: Path, suffix: str) -> None:
    """Refuse an output path with another ending before any work is done.

    Raises:
        InputError: The path ends otherwise.
    """
    if path.suffix != suffix:
        raise InputError(f"{path} does not end in {suffix}", f"For example {path.with_suffix(suffix)}.")


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Turn ``f(console, ...)`` into a command that also takes ``--json``, ``--quiet`` and ``--seed``."""
    own = inspect.signature(function, eval_str=True).parameters
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [p.replace(kind=kind) for name, p in own.items() if name != "console"]
    for name, (annotation, default) in _COMMON.items():
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))

    @functools.wraps(function)
    def wrapper(*, as_json: bool, quiet: bool, seed: int, **options: Any) -> None:
        function(Console(as_json, quiet, seed), **options)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper
