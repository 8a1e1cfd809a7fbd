"""Options that several commands share."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsegpt_core.errors import InputError

if TYPE_CHECKING:
    from sparsegpt_cli.console import Console
    from sparsegpt_cli.exporting import ExportSettings
    from sparsegpt_cli.job import Job
    from sparsegpt_cli.workflow import Workflow
    from sparsegpt_core.settings import PruneSettings

__all__ = [
    "TF32",
    "BatchSize",
    "Channels",
    "Data",
    "DataRoot",
    "Device",
    "EvalData",
    "EvalSamples",
    "ExportOptions",
    "ImageSize",
    "JobOptions",
    "Mean",
    "MemoryLimit",
    "Model",
    "NumClasses",
    "Pattern",
    "PruneOptions",
    "Samples",
    "Std",
    "Weights",
    "require_free",
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


_MOST_DISAGREEMENT = 0.5  # percent of held-out images


@dataclass(frozen=True)
class PruneOptions:
    """What the command line says about pruning; None leaves it to ``quality``."""

    pattern: Pattern = "2:4"
    quality: Annotated[str, typer.Option(help="fast, balanced or best: how much time accuracy is worth.")] = "balanced"
    method: Annotated[str, typer.Option(help="sparsegpt, or magnitude as the baseline.")] = "sparsegpt"
    mask: Annotated[
        str | None,
        typer.Option(help="adaptive (SparseGPT's), exact, admm, or auto: the best by held-out error. By --quality."),
    ] = None
    alpha: Annotated[
        str | None,
        typer.Option(help="How far to aim at the dense network's outputs: 0 to 1, or auto by held-out error."),
    ] = None
    refit: Annotated[
        bool | None, typer.Option("--refit/--no-refit", help="Solve for the kept weights exactly on the mask.")
    ] = None
    bias: Annotated[
        bool | None, typer.Option("--bias/--no-bias", help="Keep output means by shifting biases or batch norms.")
    ] = None
    damping: Annotated[
        float | None, typer.Option(help="λ of the Hessian, relative to its mean diagonal. By the data.")
    ] = None
    positions_per_column: Annotated[
        float, typer.Option(min=0, help="Positions to look at for each column of a layer, where cheaper; 0: all.")
    ] = 80
    include: Annotated[
        list[str] | None, typer.Option(help="Prune layers of this glob although they are first, last or excluded.")
    ] = None
    exclude: Annotated[list[str] | None, typer.Option(help="Leave layers of this glob dense.")] = None
    profile: Annotated[
        Path | None, typer.Option(help="Leave layers dense that gain nothing by this JSON of predict or explain.")
    ] = None

    permute: Annotated[
        bool | None, typer.Option("--permute/--no-permute", help="Order channels first, so that N:M loses less.")
    ] = None
    permute_seconds: Annotated[float, typer.Option(min=0, help="Where the search for orders is cut off.")] = 120
    views: Annotated[
        int | None, typer.Option(min=0, help="Shifted and mirrored copies of each calibration image. By --quality.")
    ] = None
    batch_norm: Annotated[
        str | None, typer.Option(help="keep the running statistics, estimate new ones, or auto: what is closer.")
    ] = None
    global_budget: Annotated[
        bool, typer.Option("--global-budget", help="Share a fraction of zeros among layers, not the same for each.")
    ] = False
    layers: Annotated[
        str, typer.Option(help="all, or auto: leave the worst dense, for --max-disagreement (then 0.5% by default).")
    ] = "all"
    max_disagreement: Annotated[
        str | None,
        typer.Option(help="Leave the worst layers dense until no more held-out images than this change class: 0.5%."),
    ] = None
    sparsity_budget: Annotated[
        float | None, typer.Option(help="Leave the worst layers dense while this share of all weights stays zero: 0.4.")
    ] = None

    def workflow(self) -> Workflow:
        """What the options mean for what is done around the sweep.

        Raises:
            InputError: A value is out of range.
        """
        from sparsegpt_cli.workflow import WORKFLOWS, Workflow

        if self.layers not in ("all", "auto"):
            raise InputError(f"unknown layers '{self.layers}'", "Use all or auto; --include and --exclude take globs.")
        most = None if self.max_disagreement is None else _percent(self.max_disagreement)
        if self.layers == "auto" and most is None and self.sparsity_budget is None:
            most = _MOST_DISAGREEMENT
        given = {"permute": self.permute, "batch_norm": self.batch_norm, "views": self.views}
        chosen = WORKFLOWS.get(self.quality, {}) | {name: value for name, value in given.items() if value is not None}
        return Workflow(
            **chosen,
            permute_seconds=self.permute_seconds,
            global_budget=self.global_budget,
            max_disagreement=most,
            sparsity_budget=self.sparsity_budget,
        )

    def settings(self) -> PruneSettings:
        """What the options mean.

        Raises:
            InputError: A value is out of range, or no number.
        """
        from sparsegpt_core.patterns import parse_pattern
        from sparsegpt_core.settings import preset

        given: dict[str, Any] = {name: getattr(self, name) for name in ("mask", "refit", "bias")}
        given = {name: value for name, value in given.items() if value is not None}
        if self.alpha is not None:
            given["alpha"] = _alpha(self.alpha)
        return preset(
            self.quality,
            pattern=parse_pattern(self.pattern),
            method=self.method,
            damping=self.damping,
            positions_per_column=self.positions_per_column,
            include=tuple(self.include or ()),
            exclude=tuple(self.exclude or ()),
            **given,
        )


@dataclass(frozen=True)
class JobOptions:
    """What the command line says about the model, its calibration data and the machine."""

    model: Model = ""
    weights: Weights = None
    data: Data = "digits"
    data_root: DataRoot = None
    mean: Mean = None
    std: Std = None
    image_size: ImageSize = None
    channels: Channels = None
    num_classes: NumClasses = None
    samples: Samples = None
    device: Device = "auto"
    memory_limit: MemoryLimit = None
    tf32: TF32 = False

    def job(self, pruning: PruneOptions, console: Console, eval_data: str | None = None, **more: Any) -> Job:
        """Load the model and its data and return the job; ``more`` are further fields of it.

        Raises:
            SparseGPTError: An option is wrong, or something cannot be loaded.
        """
        from sparsegpt_cli.data import DataOptions
        from sparsegpt_cli.job import Job
        from sparsegpt_cli.loading import ModelOptions, load, pick_device
        from sparsegpt_cli.profile import idle_layers
        from sparsegpt_core.sizes import parse_size

        # What can be wrong without reading a file is told first.
        settings, workflow, device = pruning.settings(), pruning.workflow(), pick_device(self.device)
        limit = parse_size(self.memory_limit) if self.memory_limit else None
        model, data = load(
            ModelOptions(self.model, self.weights, self.num_classes),
            DataOptions(self.data, self.data_root, eval_data, self.mean, self.std, self.image_size, self.channels),
            console,
        )
        if pruning.profile:
            idle = idle_layers(pruning.profile, model.module, console)
            settings = replace(settings, exclude=(*settings.exclude, *idle))
        return Job(
            model=model,
            data=data,
            settings=settings,
            device=device,
            workflow=workflow,
            samples=self.samples,
            seed=console.seed,
            memory_limit=limit,
            tf32=self.tf32,
            **more,
        )


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
        from sparsegpt_cli.exporting import ExportSettings

        return ExportSettings(**vars(self))


def _percent(text: str) -> float:
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        raise InputError(f"--max-disagreement '{text}' is no percentage", "For example 0.5%.") from None


def _alpha(text: str) -> float | None:
    try:
        return None if text == "auto" else float(text)
    except ValueError:
        raise InputError(f"--alpha '{text}' is no number", "Use a number from 0 to 1, or auto.") from None


def require_suffix(path: Path, suffix: str, *inputs: Path | None) -> None:
    """Refuse an output path with another ending, or that :func:`require_free` refuses.

    Raises:
        InputError: The path ends otherwise, is a directory, or one of the inputs.
    """
    if path.suffix != suffix:
        raise InputError(f"{path} does not end in {suffix}", f"For example {path.with_suffix(suffix)}.")
    require_free(path, *inputs)


def require_free(path: Path, *inputs: Path | None) -> None:
    """Refuse, before any work is done, an output path that cannot be written or that is read.

    Raises:
        InputError: The path is a directory, or one of the inputs under whatever name.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a directory", "Give the path of a file.")
    if os.path.realpath(path) in {os.path.realpath(each) for each in inputs if each}:
        raise InputError(f"{path} would be overwritten", "Give --out another name: inputs are kept.")
