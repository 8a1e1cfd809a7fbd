"""The arguments of a user's factory: read from text, and checked before the call."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sparsegpt_core.errors import InputError, ModelError

__all__ = ["check_arguments", "parameters_of", "parse_arguments"]

_WORDS = {"true": True, "false": False}  # as YAML and JSON spell them; as text, both would count as true


def parse_arguments(texts: Iterable[str]) -> dict[str, Any]:
    """Read arguments from ``KEY=VALUE`` texts. A value is a Python literal, ``true`` or ``false``, else a text.

    Raises:
        InputError: A text is not ``KEY=VALUE``, or a key is given twice.

    Example:
        >>> parse_arguments(["width=64", "activation=relu", "bias=false", "depths=(2, 2)"])
        {'width': 64, 'activation': 'relu', 'bias': False, 'depths': (2, 2)}
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key.isidentifier():
            raise InputError(f"the model argument '{text}' is not KEY=VALUE", "For example `model_args=width=64`.")
        if key in values:
            raise InputError(f"the model argument {key} is given twice", "Leave one of them out.")
        values[key] = _WORDS[value] if value in _WORDS else _literal(value)
    return values


def check_arguments(
    spec: str, factory: Callable[..., Any], arguments: Mapping[str, Any], num_classes: int | None
) -> dict[str, Any]:
    """Return the arguments of a factory, with ``num_classes`` if it has such a parameter.

    Raises:
        ModelError: An argument is missing or unknown.

    Example:
        >>> def net(width, num_classes=10): ...
        >>> check_arguments("mynet:net", net, {"width": 64}, num_classes=4)
        {'num_classes': 4, 'width': 64}
    """
    known = parameters_of(factory)
    given = {"num_classes": num_classes} if num_classes is not None and "num_classes" in known else {}
    given |= arguments
    takes_any = not known or any(each.kind is each.VAR_KEYWORD for each in known.values())
    for name in given:
        if name not in known and not takes_any:
            raise ModelError(f"{spec} has no argument {name}", f"It has {', '.join(known)}.")
    for name, each in known.items():
        is_needed = each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        if is_needed and name not in given:
            raise ModelError(f"{spec} needs the argument {name}", f"Give `model_args={name}=VALUE`.")
    return given


def parameters_of(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a factory; empty where it does not tell them.

    Example:
        >>> list(parameters_of(lambda width, depth=3: None))
        ['width', 'depth']
    """
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):  # it cannot be called, or is written in C
        return {}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
