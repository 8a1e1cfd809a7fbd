"""A configuration: values for flags from a YAML file.

Keys are flags without the leading dashes. Keys at the top level are shared by all commands that have such a flag; a
section named after a command contains the command's own, which replace the shared ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sparsegpt_cli.framework.errors import ClickException
from sparsegpt_core.errors import InputError

if TYPE_CHECKING:
    from sparsegpt_cli.framework.yaml_tree import Node

__all__ = ["FOLDER", "Config", "Text", "flags_of", "load_config"]

FOLDER = "$OUT"
"""Stands for the output folder of ``run`` in a file."""

Text = str | list[str]
"""The value of a flag as text, as on the command line; a list if the flag may be repeated."""

_NOT_KEYS = ("config", "config_file")


@dataclass(frozen=True)
class Config:
    """A configuration whose keys are flags, with values that are valid in its sections."""

    path: Path
    shared: Mapping[str, Node]
    sections: Mapping[str, Mapping[str, Node]]

    def for_command(self, command: Any, context: typer.Context) -> dict[str, Text]:
        """Return the values for a command; null in a section cancels a shared value.

        Raises:
            InputError: A value is not valid for its flag.
        """
        flags = flags_of(command)
        shared = {key: node for key, node in self.shared.items() if key in flags}
        return self.texts({**shared, **self.sections.get(command.name, {})}, command, context)

    def texts(self, nodes: Mapping[str, Node], command: Any, context: typer.Context) -> dict[str, Text]:
        """Return the values of the flags in ``nodes``, each checked by its flag.

        Raises:
            InputError: A value is not valid for its flag, or a flag with two names is given twice.
        """
        flags, keys = flags_of(command), dict[str, str]()
        texts: dict[str, Text] = {}
        for key, node in nodes.items():
            other = keys.setdefault(flags[key].name, key)
            if other != key:
                raise self._error(
                    node, f"{key} is another name of {other}, which is also given", "Leave one of them out."
                )
            if node.value is not None:
                texts[key] = self._text(key, node, flags[key])
                self._try(key, node, texts[key], flags[key], context)
        return texts

    def check(self, commands: Mapping[str, Any], context: typer.Context) -> None:
        """Raise InputError if a key is not a flag, or a section's value is not valid for its flag."""
        known = {key for command in commands.values() for key in flags_of(command)}
        for key, node in self.shared.items():
            if key not in known:
                raise self._error(node, f"no command has {key[:60]!r}", _nearest(key, {*known, *commands}))
        for name, nodes in self.sections.items():
            flags = flags_of(commands[name])
            for key, node in nodes.items():
                if key not in flags:
                    raise self._error(
                        node, f"{name} has no {key[:60]!r}", _negated(key, commands[name]) or _nearest(key, flags)
                    )
            self.texts(nodes, commands[name], context)

    def _text(self, key: str, node: Node, flag: Any) -> Text:
        several = getattr(flag, "multiple", False)
        if isinstance(node.value, str):
            return [node.value] if several else node.value
        if isinstance(node.value, list) and several:
            return [item.value if isinstance(item.value, str) else self._refuse(key, item) for item in node.value]
        return self._refuse(key, node)

    def _refuse(self, key: str, node: Node) -> str:
        what = "a list" if isinstance(node.value, list) else "null" if node.value is None else "a section"
        items = node.value if isinstance(node.value, list) else []
        example = f": {','.join(str(item.value) for item in items)}" if items else ""
        raise self._error(node, f"{key} cannot be {what}", f"Give a value, as on the command line{example}.")

    def _try(self, key: str, node: Node, text: Text, flag: Any, context: typer.Context) -> None:
        try:
            flag.process_value(context, text)
        except ClickException as error:
            shown = text if isinstance(text, str) else ", ".join(text)
            raise self._error(node, f"{key} cannot be {shown[:60]!r}", error.message) from None

    def _error(self, node: Node, message: str, hint: str = "") -> InputError:
        return InputError(f"{self.path}, line {node.line}: {message}", hint)


def load_config(path: Path, commands: Mapping[str, Any], context: typer.Context) -> Config:
    """Read a configuration and check all of its sections.

    Args:
        path: The YAML file.
        commands: The program's commands by name.
        context: The context of the command that reads it.

    Raises:
        InputError: The file cannot be read, a key is not a flag, or a value is not valid for its flag.
    """
    from sparsegpt_cli.framework.yaml_tree import read_tree

    tree = read_tree(path)
    sections: dict[str, dict[str, Node]] = {}
    for name, node in tree.items():
        if name not in commands:
            continue
        if not isinstance(node.value, dict | None):
            raise InputError(
                f"{path}, line {node.line}: {name} is a command and needs a section",
                "Put its flags below it, indented.",
            )
        sections[name] = node.value or {}
    config = Config(path, {key: node for key, node in tree.items() if key not in commands}, sections)
    config.check(commands, context)
    return config


def flags_of(command: Any) -> dict[str, Any]:
    """Return the flags and arguments of a command that a file may contain, by their keys.

    Example:
        >>> app = typer.Typer(add_completion=False)
        >>> @app.command()
        ... def show(page: int, dark_mode: bool = False) -> None: ...
        >>> sorted(flags_of(typer.main.get_command(app)))
        ['dark-mode', 'page']
    """
    return {_key(name): each for each in command.params if each.name not in _NOT_KEYS for name in each.opts}


def _key(option: str) -> str:
    return option.lstrip("-").replace("_", "-")


def _nearest(key: str, known: Iterable[str]) -> str:
    close = get_close_matches(key, sorted(known), 1, cutoff=0.7)  # 'sizes' is not 'seeds'
    return f"Did you mean {close[0]}?" if close else "Keys are flags without the leading dashes; --help lists them."


def _negated(key: str, command: Any) -> str:
    """Return a hint for a key that is the negative form of a flag."""
    opposites = {_key(name): _key(each.opts[0]) for each in command.params for name in each.secondary_opts}
    return f"Write {opposites[key]}: false." if key in opposites else ""
