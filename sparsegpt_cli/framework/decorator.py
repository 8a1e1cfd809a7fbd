"""The decorator that makes a function a command, with the options that all commands have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from sparsegpt_cli.framework.config_flags import ConfigOption
from sparsegpt_cli.framework.session import Session

__all__ = ["command"]

_COMMON: dict[str, tuple[Any, Any]] = {
    "config_file": (ConfigOption, None),
    "as_json": (Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")], False),
    "quiet": (Annotated[bool, typer.Option("--quiet", help="Show no progress and no messages.")], False),
    "seed": (Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random numbers.")], 0),
}

_VALUES = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Turn ``f(console, ...)`` into a command that also takes ``--config``, ``--json``, ``--quiet`` and ``--seed``.

    A parameter whose type is a dataclass of options stands for all of its fields; their defaults come from the
    parameter's default, where it has one. ``context`` is click's context.

    Example:
        >>> from sparsegpt_cli.terminal import Console
        >>> @command
        ... def hello(console: Console, *, name: str = "you") -> None:
        ...     console.result({"name": name}, [f"Hello {name}"])
        >>> app = typer.Typer()
        >>> _ = app.command()(hello)
        >>> app(["--name", "me", "--quiet"], standalone_mode=False)
        Hello me
    """
    own = dict(inspect.signature(function, eval_str=True).parameters)
    del own["console"]
    kind = inspect.Parameter.KEYWORD_ONLY
    groups = {name: parameter for name, parameter in own.items() if is_dataclass(parameter.annotation)}
    parameters = []
    for name, parameter in own.items():
        parameters += _flattened(parameter) if name in groups else [parameter.replace(kind=kind)]
    if "context" not in own:
        parameters.append(inspect.Parameter("context", kind, annotation=typer.Context))
    for name, (annotation, default) in _COMMON.items():
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
    for parameter in parameters:
        _name_the_value(parameter.annotation)

    @functools.wraps(function)
    def wrapper(
        *, context: typer.Context, config_file: Path | None, as_json: bool, quiet: bool, seed: int, **options: Any
    ) -> None:
        if "context" in own:
            options["context"] = context
        built = {name: _build(parameter.annotation, options) for name, parameter in groups.items()}
        console = context.ensure_object(Session).console(as_json, quiet, seed)
        with console.working():
            function(console, **built, **options)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _flattened(group: inspect.Parameter) -> list[inspect.Parameter]:
    """Return a parameter for each field of a group, and of the groups among its fields."""
    kind, hints = inspect.Parameter.KEYWORD_ONLY, get_type_hints(group.annotation, include_extras=True)
    defaults = group.annotation() if group.default is inspect.Parameter.empty else group.default
    found: list[inspect.Parameter] = []
    for field in fields(group.annotation):
        parameter = inspect.Parameter(
            field.name, kind, default=getattr(defaults, field.name), annotation=hints[field.name]
        )
        found += _flattened(parameter) if is_dataclass(parameter.annotation) else [parameter]
    return found


def _name_the_value(annotation: Any) -> None:
    """Give an option that names no value the usual name of its type."""
    option = next((each for each in getattr(annotation, "__metadata__", ()) if isinstance(each, OptionInfo)), None)
    if option is not None and option.metavar is None:
        names = [_VALUES[kind] for kind in _parts(get_args(annotation)[0]) if kind in _VALUES]
        option.metavar = names[0] if names else None


def _parts(kind: Any) -> list[Any]:
    """Return the types in a type: ``list[Path] | None`` has two."""
    inner = get_args(kind)
    return [part for each in inner for part in _parts(each)] if inner else [kind]


def _build(group: Any, options: dict[str, Any]) -> Any:
    """Make a group from its options, which are taken out of ``options``."""
    hints = get_type_hints(group)
    return group(
        **{
            field.name: _build(hints[field.name], options)
            if is_dataclass(hints[field.name])
            else options.pop(field.name)
            for field in fields(group)
        }
    )
