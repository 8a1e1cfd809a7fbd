"""The options of pruning, as one group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsegpt_core.errors import InputError

if TYPE_CHECKING:
    from sparsegpt_cli.jobs.gains import Target
    from sparsegpt_core.quality import Quality
from sparsegpt_cli.options.shared import Gpu, Pattern

__all__ = ["PruneOptions"]

_BY_QUALITY = ("mask", "refit", "bias", "variance", "damping", "permute", "batch_norm", "look_ahead", "views")
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
        typer.Option(
            help="fast, balanced or best: more accuracy for more time. Sets mask, alpha, refit, permute, views and "
            "batch-norm."
        ),
    ] = "balanced"
    method: Annotated[str, typer.Option(help="sparsegpt, or magnitude: the baseline.")] = "sparsegpt"
    mask: Annotated[
        str | None,
        typer.Option(help="adaptive (SparseGPT's), exact, admm, or auto: the better by held-out error."),
    ] = None
    alpha: Annotated[
        str | None,
        typer.Option(help="0: fit the pruned network's own outputs; 1: the dense network's; auto: by held-out error."),
    ] = None
    refit: Annotated[
        bool | None,
        typer.Option("--refit/--no-refit", help="Fit the kept weights exactly to the mask."),
    ] = None
    bias: Annotated[
        bool | None,
        typer.Option("--bias/--no-bias", help="Keep the mean outputs by shifting biases or batch norms."),
    ] = None
    variance: Annotated[
        bool | None,
        typer.Option(
            "--variance/--no-variance",
            help="Keep the variance of the outputs by scaling a layer's weights. Default: where the network gives one "
            "row of numbers for each image, such as logits.",
        ),
    ] = None
    damping: Annotated[
        float | None,
        typer.Option(help="λ on the Hessian's diagonal, relative to its mean. Default: by positions and error."),
    ] = None
    positions_per_column: Annotated[
        float,
        typer.Option(min=0, help="Sampled positions for each column of a layer's Hessian, if that is cheaper; 0: all."),
    ] = 80
    include: Annotated[
        list[str] | None,
        typer.Option(help="Glob of layers to prune although they are first, last or excluded; may be repeated."),
    ] = None
    exclude: Annotated[list[str] | None, typer.Option(help="Glob of layers to leave dense; may be repeated.")] = None

    permute: Annotated[
        bool | None,
        typer.Option("--permute/--no-permute", help="Reorder channels first, to lose less with N:M."),
    ] = None
    permute_seconds: Annotated[
        float, typer.Option(callback=_above_zero, help="Seconds after which the search for channel orders stops.")
    ] = 120
    views: Annotated[
        int | None,
        typer.Option(min=0, help="Shifted and mirrored copies of each calibration image."),
    ] = None
    batch_norm: Annotated[
        str | None,
        typer.Option(
            help="keep: the trained statistics; new: those of the calibration images; auto: the better by held-out "
            "error."
        ),
    ] = None
    look_ahead: Annotated[
        bool | None,
        typer.Option(
            "--look-ahead/--no-look-ahead",
            help="Fit the kept weights again at the end, block by block, where held-out error falls.",
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
        typer.Option(
            help="pays: those that 2:4 can make faster; all; or auto: those that pay, without the worst ones, with "
            "--max-disagreement 0.5% unless a target is given."
        ),
    ] = "pays"
    gpu: Gpu = None
    engine_batch: Annotated[int, typer.Option(min=1, help="Images in one inference of the engine.")] = 8
    profile: Annotated[
        Path | None,
        typer.Option(help="Measured gains of the layers, in place of estimates: the JSON of predict or benchmark."),
    ] = None
    max_disagreement: Annotated[
        str | None,
        typer.Option(
            help="Leave the worst layers dense until, with 95 % confidence, at most this percentage of held-out images "
            "changes class."
        ),
    ] = None
    min_speedup: Annotated[
        float | None,
        typer.Option(help="Leave the worst layers dense while the estimated speed-up is at least this, such as 1.05."),
    ] = None
    sparsity_budget: Annotated[
        float | None, typer.Option(help="Leave the worst layers dense while this fraction of all weights stays zero.")
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
