"""Options of the commands that build and time engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deploy.engines import EngineSettings

__all__ = ["EngineOptions"]


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
    shapes: Annotated[
        str | None,
        typer.Option(
            help="MIN/OPT/MAX batch, or NAME:MIN/OPT/MAX with whole shapes (1x3x224x224); OPT is what is timed."
        ),
    ] = None
    plans: Annotated[Path | None, typer.Option(help="A folder to keep the plans in: A1.plan, B1.plan, ...")] = None

    def settings(self) -> EngineSettings:
        """What the options mean.

        Raises:
            InputError: The shapes cannot be read.
        """
        from deploy.engines import EngineSettings
        from deploy.settings import BuildSettings
        from deploy.shapes import parse_shapes
        from deploy.timing import Regime

        return EngineSettings(
            build=BuildSettings(shapes=parse_shapes(self.shapes) if self.shapes else None),
            regime=Regime(
                "host" if self.host_clock else "gpu",
                transfers=self.transfers,
                cuda_graph=self.cuda_graph,
                streams=self.streams,
            ),
            rebuilds=self.rebuilds,
            plans=self.plans,
        )
