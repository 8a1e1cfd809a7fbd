"""The decorator that makes a function a command, with the options that all commands have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from sparsegpt_cli.framework.config import ConfigOption
from sparsegpt_cli.framework.session import Session

__all__ = ["command"]

_COMMON: dict[str, tuple[Any, Any]] = {
    "config_file": (ConfigOption, None),
    "as_json": (Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")], False),
    "quiet": (Annotated[bool, typer.Option("--quiet", help="No progress, no messages.")], False),
    "seed": (Annotated[int, typer.Option(min=0, max=2**32 - 1, help="For everything drawn at random.")], 0),
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Turn ``f(console, ...)`` into a command that also takes ``--config``, ``--json``, ``--quiet`` and ``--seed``.

    A parameter that is a dataclass stands for the options that its fields are; ``context`` is click's context.
    """
    own = dict(inspect.signature(function, eval_str=True).parameters)
    del own["console"]
    kind = inspect.Parameter.KEYWORD_ONLY
    groups: dict[str, Any] = {name: p.annotation for name, p in own.items() if is_dataclass(p.annotation)}
    parameters = []
    for name, parameter in own.items():
        parameters += _options(groups[name]) if name in groups else [parameter.replace(kind=kind)]
    if "context" not in own:
        parameters.append(inspect.Parameter("context", kind, annotation=typer.Context))
    for name, (annotation, default) in _COMMON.items():
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))

    @functools.wraps(function)
    def wrapper(
        *, context: typer.Context, config_file: Path | None, as_json: bool, quiet: bool, seed: int, **options: Any
    ) -> None:
        if "context" in own:
            options["context"] = context
        built = {
            name: group(**{field.name: options.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        function(context.ensure_object(Session).console(as_json, quiet, seed), **built, **options)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
