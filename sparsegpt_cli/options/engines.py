"""Options of the commands that build and time engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from deploy.benchmark import EngineSettings
    from deploy.builder import BuildSettings

__all__ = ["BuildOptions", "EngineOptions"]


@dataclass(frozen=True)
class BuildOptions:
    """What the command line says about a build."""

    shapes: Annotated[
        str | None,
        typer.Option(
            help="MIN/OPT/MAX batch, or NAME:MIN/OPT/MAX with whole shapes (1x3x224x224); OPT is built and timed for."
        ),
    ] = None
    opt_level: Annotated[int | None, typer.Option(help="Builder optimisation level, 0 to 5.")] = None
    workspace: Annotated[
        str | None, typer.Option(help="The most memory a kernel may use, such as 4GiB. Default: all there is.")
    ] = None
    tactic_sources: Annotated[str | None, typer.Option(help="Kernel libraries, with commas.")] = None
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Let later versions of TensorRT load the plan.")
    ] = False
    hardware: Annotated[
        str | None,
        typer.Option(help="GPUs the plan is for beside this one: ampere-plus or same-compute-capability (tensorrt)."),
    ] = None

    def settings(self, **more: Any) -> BuildSettings:
        """What the options mean; ``more`` are further fields.

        Raises:
            InputError: A value is out of range or cannot be read.
        """
        from deploy.builder import BuildSettings
        from deploy.graph import parse_shapes
        from sparsegpt_cli.options import parse_size

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
    """What the command line says about engines."""

    rebuilds: Annotated[int, typer.Option(min=1, help="How often each engine is built: tactic choice is noisy.")] = 2
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph/--no-cuda-graph", help="Launch each inference as one CUDA graph.")
    ] = True
    transfers: Annotated[bool, typer.Option("--transfers", help="Time copies to and from the GPU too.")] = False
    host_clock: Annotated[
        bool, typer.Option("--host-clock", help="Time by the host's clock, not between events on the GPU.")
    ] = False
    streams: Annotated[int, typer.Option(min=1, help="Inferences at the same time.")] = 1
    plans: Annotated[Path | None, typer.Option(help="A folder to keep the plans in: A1.plan, B1.plan, ...")] = None

    def settings(self, build: BuildSettings) -> EngineSettings:
        """What the options mean, with engines built in this way."""
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
