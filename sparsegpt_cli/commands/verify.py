"""``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsegpt_cli.framework import choice, command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.options import Verbose
from sparsegpt_cli.terminal import Console, audit_lines

__all__ = ["verify"]


@command
def verify(
    console: Console,
    model: Annotated[Path, typer.Argument(help="An .onnx file.", show_default=False)],
    pattern: Annotated[
        str | None,
        typer.Option(metavar="N:M", help="Pattern to check.", show_default="that of the model's metadata, else 2:4"),
    ] = None,
    fail_on: Annotated[
        str | None,
        choice(
            *("dense", "ineligible"),
            help="dense: exit with 1 if a layer is dense that could be sparse, unless pruning left it dense on "
            "purpose; ineligible: exit with 1 if a layer cannot use sparse kernels for any reason.",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Check the sparsity pattern of an ONNX file.

    Shows for each weight whether it obeys the pattern, and why a layer cannot use sparse kernels.
    """
    from export.audit import audit_model
    from sparsegpt_core.errors import InputError
    from sparsegpt_core.patterns import NM, parse_pattern

    if fail_on not in (None, "dense", "ineligible"):
        raise typer.BadParameter(f"'{fail_on}' is not dense or ineligible", param_hint="--fail-on")
    wanted = parse_pattern(pattern) if pattern else None
    if wanted is not None and not isinstance(wanted, NM):
        raise InputError(f"'{pattern}' is not an N:M pattern", "For example 2:4.")
    result = audit_model(model, wanted)
    lines: list[Any] = [
        *audit_lines(result, verbose),
        f"{result.sparse_layers} of {len(result.layers)} weights are {result.pattern}; "
        f"{result.eligible_layers} layers are eligible for sparse kernels",
    ]
    missed = []
    if failures := result.failures(fail_on) if fail_on else []:
        first = failures[0]
        code = first.reason.value if first.reason else ""
        where = f", its first group at {first.first_violation}" if first.first_violation else ""
        missed = [
            f"--fail-on {fail_on}: {len(failures)} of {len(result.layers)} layers, first {first.name} ({code}{where})"
        ]
    passed = None if fail_on is None else not missed
    if not missed:
        half = model.with_suffix(".fp16.onnx")  # there are no sparse kernels for FP32
        lines.append(next_step("build", half if half.is_file() else model))
    console.result({**result.to_json(), "passed": passed, "failures": missed}, lines)
    if missed:
        console.error(missed[0])
        raise typer.Exit(1)
