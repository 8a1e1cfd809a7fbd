"""Options of the commands that build and time engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsegpt_cli.framework import choice

if TYPE_CHECKING:
    from deploy.benchmark import EngineSettings
    from deploy.builder import BuildSettings
    from deploy.measure import TimingSettings

__all__ = ["BuildOptions", "EngineOptions", "TimingOptions"]


@dataclass(frozen=True)
class BuildOptions:
    """How to build an engine."""

    shapes: Annotated[
        str | None,
        typer.Option(
            metavar="[NAME:]MIN/OPT/MAX",
            help="Batches, or with NAME shapes such as 1x3x224x224; OPT is optimised and timed.",
        ),
    ] = None
    opt_level: Annotated[int | None, typer.Option(metavar="0...5", help="Optimisation level of the builder.")] = None
    workspace: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory limit of each kernel, such as 4GiB.", show_default="all memory"),
    ] = None
    tactic_sources: Annotated[str | None, typer.Option(metavar="NAMES", help="Kernel libraries, with commas.")] = None
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Let later TensorRT versions load the plan.")
    ] = False
    hardware: Annotated[
        str | None,
        choice("ampere-plus", "same-compute-capability", help="Other GPUs that may load the plan (tensorrt only)."),
    ] = None

    def settings(self, **more: Any) -> BuildSettings:
        """Return the settings; ``more`` are further fields.

        Raises:
            InputError: A value is out of range or cannot be read.
        """
        from deploy.builder import BuildSettings
        from deploy.graph import parse_shapes
        from sparsegpt_cli.options.sizes import parse_size

        sources = self.tactic_sources
        return BuildSettings(
            shapes=parse_shapes(self.shapes) if self.shapes else None,
            opt_level=self.opt_level,
            workspace=parse_size(self.workspace) if self.workspace else None,
            tactic_sources=None if sources is None else tuple(filter(None, sources.split(","))),
            version_compatible=self.version_compatible,
            hardware=self.hardware,
            **more,
        )


@dataclass(frozen=True)
class EngineOptions:
    """How to build and time the engines of a benchmark."""

    rebuilds: Annotated[
        int, typer.Option(min=1, help="Builds of each engine, which may choose other tactics; 1 measures one build.")
    ] = 3
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph/--no-cuda-graph", help="Launch each inference as one CUDA graph.")
    ] = True
    transfers: Annotated[bool, typer.Option("--transfers", help="Also time the copies to and from the GPU.")] = False
    host_clock: Annotated[
        bool, typer.Option("--host-clock", help="Time with the host's clock instead of GPU events.")
    ] = False
    streams: Annotated[int, typer.Option(min=1, help="Inferences that run at the same time.")] = 1
    plans: Annotated[Path | None, typer.Option(help="Folder for the plans: A1.plan, B1.plan, ...")] = None

    def settings(self, build: BuildSettings) -> EngineSettings:
        """Return the settings, with those of each build."""
        from deploy.benchmark import EngineSettings
        from deploy.measure import Regime

        return EngineSettings(
            build=build,
            regime=Regime(
                "host" if self.host_clock else "gpu",
                transfers=self.transfers,
                cuda_graph=self.cuda_graph,
                streams=self.streams,
            ),
            rebuilds=self.rebuilds,
            plans=self.plans,
        )


@dataclass(frozen=True)
class TimingOptions:
    """How long to time."""

    duration: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds of timing for each engine.", show_default="3; with --quick 0.3"),
    ] = None
    warmup: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds of warm-up for each engine, or more.", show_default="0.5; with --quick 0.05"),
    ] = None
    rounds: Annotated[int, typer.Option(min=2, help="Turns of each engine, which share the duration.")] = 20
    quick: Annotated[
        bool, typer.Option("--quick", help="Time a tenth as long; always so with the runtime onnxruntime.")
    ] = False

    def settings(self, quick: bool = False) -> TimingSettings:
        """Return the settings; ``quick`` makes ``--quick`` the default."""
        from deploy.measure import QUICK_TIMING, TimingSettings

        default = QUICK_TIMING if self.quick or quick else TimingSettings()
        return TimingSettings(
            default.duration_s if self.duration is None else self.duration,
            default.warmup_s if self.warmup is None else self.warmup,
            self.rounds,
        )
