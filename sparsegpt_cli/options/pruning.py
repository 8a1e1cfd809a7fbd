"""The options of pruning, as one group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsegpt_cli.framework import choice
from sparsegpt_cli.options.shared import EngineBatch, Gpu, Pattern
from sparsegpt_core.errors import InputError

if TYPE_CHECKING:
    from sparsegpt_cli.jobs.gains import Target
    from sparsegpt_core.quality import Quality

__all__ = ["PruneOptions"]

_BY_QUALITY = ("mask", "refit", "bias", "variance", "damping", "permute", "batch_norm", "look_ahead", "views")
_SOURCE = "by --quality"
_LAYERS = ("pays", "all", "auto")
_AUTO_DISAGREEMENT_PERCENT = 0.5  # of held-out images, for --layers auto


def _above_zero(value: float) -> float:
    if not value > 0:
        raise typer.BadParameter(f"{value:g} is not above 0.")
    return value


@dataclass(frozen=True)
class PruneOptions:
    """How to prune; None leaves a value to ``quality``."""

    pattern: Pattern = "2:4"
    quality: Annotated[
        str,
        choice("fast", "balanced", "best", help="More accuracy for more time."),
    ] = "balanced"
    method: Annotated[str, choice("sparsegpt", "magnitude", help="magnitude is the baseline.")] = "sparsegpt"
    mask: Annotated[
        str | None,
        choice(
            *("adaptive", "exact", "admm", "auto"),
            help="adaptive is SparseGPT's; auto: the better by held-out error.",
            show_default=_SOURCE,
        ),
    ] = None
    alpha: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|auto",
            help="0: fit the pruned network's own outputs; 1: the dense network's; auto: by held-out error.",
            show_default=_SOURCE,
        ),
    ] = None
    refit: Annotated[
        bool | None,
        typer.Option("--refit/--no-refit", help="Fit the kept weights exactly to the mask.", show_default=_SOURCE),
    ] = None
    bias: Annotated[
        bool | None,
        typer.Option(
            "--bias/--no-bias",
            help="Keep the mean outputs by shifting biases or batch norms.",
            show_default=_SOURCE,
        ),
    ] = None
    variance: Annotated[
        bool | None,
        typer.Option(
            "--variance/--no-variance",
            help="Keep the variance of the outputs by scaling a layer's weights.",
            show_default="on where the network gives one row of numbers for each image, such as logits",
        ),
    ] = None
    damping: Annotated[
        float | None,
        typer.Option(
            help="λ on the Hessian's diagonal, relative to its mean.", show_default="by the data and the pattern"
        ),
    ] = None
    positions_per_column: Annotated[
        float,
        typer.Option(min=0, help="Sampled positions for each column of a layer's Hessian, if that is cheaper; 0: all."),
    ] = 80
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Layers to prune although they are first or last; may be repeated."),
    ] = None
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Layers to leave dense; may be repeated.")
    ] = None

    permute: Annotated[
        bool | None,
        typer.Option(
            "--permute/--no-permute",
            help="Reorder channels first, to lose less with N:M.",
            show_default=_SOURCE,
        ),
    ] = None
    permute_seconds: Annotated[
        float, typer.Option(callback=_above_zero, help="Seconds after which the search for channel orders stops.")
    ] = 120
    views: Annotated[
        int | None,
        typer.Option(min=0, help="Shifted and mirrored copies of each calibration image.", show_default=_SOURCE),
    ] = None
    batch_norm: Annotated[
        str | None,
        choice(
            *("keep", "new", "auto"),
            help="keep: the trained statistics; new: those of the calibration images; auto: the better by held-out "
            "error.",
            show_default=_SOURCE,
        ),
    ] = None
    look_ahead: Annotated[
        bool | None,
        typer.Option(
            "--look-ahead/--no-look-ahead",
            help="Fit the kept weights again at the end, block by block, where held-out error falls.",
            show_default=_SOURCE,
        ),
    ] = None
    global_budget: Annotated[
        bool,
        typer.Option(
            "--global-budget", help="Let layers share a fraction of zeros, instead of the same fraction in each."
        ),
    ] = False
    layers: Annotated[
        str,
        choice(
            *_LAYERS,
            help="pays: those that 2:4 can make faster; auto: only the best of these.",
        ),
    ] = "pays"
    gpu: Gpu = None
    engine_batch: EngineBatch = 8
    profile: Annotated[
        Path | None,
        typer.Option(help="JSON of predict or benchmark, for measured gains."),
    ] = None
    max_disagreement: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="Leave layers dense until no more held-out images change class.",
        ),
    ] = None
    min_speedup: Annotated[
        float | None,
        typer.Option(help="Leave layers dense while the estimated speed-up is at least this."),
    ] = None
    sparsity_budget: Annotated[
        float | None,
        typer.Option(metavar="FRACTION", help="Leave layers dense while this part of all weights is zero."),
    ] = None

    def quality_settings(self) -> Quality:
        """The quality, with the options that were given in place of its own values.

        Raises:
            InputError: A value is out of range, or is not a number.
        """
        from sparsegpt_core.patterns import parse_pattern
        from sparsegpt_core.quality import preset

        if self.layers not in _LAYERS:
            raise InputError(
                f"unknown layers '{self.layers}'", "Use pays, all or auto; --include and --exclude take globs."
            )
        given = {name: value for name in _BY_QUALITY if (value := getattr(self, name)) is not None}
        if self.alpha is not None:
            given["alpha"] = _alpha(self.alpha)
        return preset(
            self.quality,
            pattern=parse_pattern(self.pattern),
            method=self.method,
            positions_per_column=self.positions_per_column,
            include=tuple(self.include or ()),
            exclude=tuple(self.exclude or ()),
            permute_seconds=self.permute_seconds,
            global_budget=self.global_budget,
            max_disagreement=self._max_disagreement(),
            sparsity_budget=self.sparsity_budget,
            min_speedup=self.min_speedup,
            **given,
        )

    def target(self, int8: bool) -> Target | None:
        """The GPU that decides which layers pay; None with ``--layers all``.

        Args:
            int8: Whether the engine is INT8; else it is FP16.

        Raises:
            InputError: The GPU is unknown, the profile is missing or damaged, or an option needs layers that pay.
        """
        from deploy.predict import read_profile
        from deploy.roofline import find_spec
        from sparsegpt_cli.jobs.gains import Target

        if self.layers == "all":
            for name in ("gpu", "min_speedup"):
                if getattr(self, name) is not None:
                    raise InputError(f"`{name}` needs layers that pay", "Leave out `layers=all`.")
            return None
        profile = read_profile(self.profile) if self.profile else {}
        return Target(find_spec(self.gpu).name, "int8" if int8 else "fp16", self.engine_batch, profile)

    def _max_disagreement(self) -> float | None:
        if self.max_disagreement is not None:
            return _percent(self.max_disagreement)
        has_target = self.sparsity_budget is not None or self.min_speedup is not None
        return _AUTO_DISAGREEMENT_PERCENT if self.layers == "auto" and not has_target else None


def _percent(text: str) -> float:
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        raise InputError(f"--max-disagreement '{text}' is not a percentage", "For example 0.5%.") from None


def _alpha(text: str) -> float | None:
    try:
        return None if text == "auto" else float(text)
    except ValueError:
        raise InputError(f"--alpha '{text}' is not a number", "Use a number from 0 to 1, or auto.") from None
