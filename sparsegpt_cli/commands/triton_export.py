"""``triton-export``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli.framework import command
from sparsegpt_cli.terminal import Console
from sparsegpt_core.errors import InputError

__all__ = ["triton_export"]


@command
def triton_export(
    console: Console,
    model: Annotated[Path, typer.Argument(help="An .onnx file, or a .plan with its sidecar.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Model repository; it is made if it does not exist.")],
    name: Annotated[str | None, typer.Option(help="The model's name.", show_default="the name of its file")] = None,
    version: Annotated[int, typer.Option(min=1, help="The version's number.")] = 1,
    max_batch_size: Annotated[
        int | None,
        typer.Option(min=0, help="0: no batching.", show_default="32, or the plan's maximum, if the batch is dynamic"),
    ] = None,
    preferred_batch_sizes: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Batch sizes that run at once when enough requests wait, such as 8,32."),
    ] = None,
    max_queue_delay_us: Annotated[
        int, typer.Option(min=0, help="Microseconds that a request may wait for others.")
    ] = 100,
    instances: Annotated[int, typer.Option(min=1, help="Instances of the model on each GPU.")] = 1,
    gpu_index: Annotated[
        list[int] | None, typer.Option(min=0, help="Number of a GPU to use; may be repeated.", show_default="all")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace this version if it exists.")] = False,
) -> None:
    """Write a model to a Triton model repository."""
    from export.triton import TritonSettings, write_repository
    from sparsegpt_cli.jobs.plan_signature import read_signature

    settings = TritonSettings(
        name=name or model.stem,
        version=version,
        max_batch_size=max_batch_size,
        preferred_batch_sizes=_sizes(preferred_batch_sizes),
        max_queue_delay_us=max_queue_delay_us,
        instances=instances,
        gpus=tuple(gpu_index or ()),
    )
    plan = None if model.suffix == ".onnx" else read_signature(model)
    made = write_repository(model, out, settings, plan, force)
    largest = made.config.max_batch_size
    batches = f"batches of up to {largest}" if largest else f"no batching: {made.config.no_batching_reason}"
    line = f"{made.folder}: {made.config.platform}, version {version}, {batches}"
    following = shlex.join(["tritonserver", "--model-repository", str(out)])
    console.result(made.to_json(), [line, *(f"  {file}" for file in made.files), f"next: {following}"])


def _sizes(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"--preferred-batch-sizes '{text}' is not a list of numbers", "For example 8,32.") from None
