"""Flags from a YAML file: ``--config`` of every command, and the CONFIG of ``run`` and ``sweep``.

Keys are flags without the dashes before them. Those at the top are shared by all commands that have such a flag; a
section named after a command holds its own, which win over shared ones. Flags on the command line win over both.

The values become click's ``default_map``, so that types, ranges, repeatable and required flags work as on the command
line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsegpt_cli.framework.session import ClickException, Session
from sparsegpt_core.errors import InputError

if TYPE_CHECKING:
    from sparsegpt_cli.framework.yaml_tree import Node

__all__ = ["FOLDER", "Config", "ConfigFile", "ConfigOption", "Text", "flags_of", "load_config"]

FOLDER = "$OUT"
"""Stands for the folder of ``run`` in a file; no other command has one."""

Text = str | list[str]
"""What a flag is given, as it would stand on the command line; several where the flag may be repeated."""

_NOT_KEYS = ("config", "config_file")


@dataclass(frozen=True)
class Config:
    """A file whose keys are all flags of some command, with values that its sections' commands take."""

    path: Path
    shared: Mapping[str, Node]
    sections: Mapping[str, Mapping[str, Node]]

    def for_command(self, command: Any, context: typer.Context) -> dict[str, Text]:
        """Return what the file gives to a command; None in a section takes a shared value back.

        Raises:
            InputError: A value is not what its flag takes.
        """
        flags = flags_of(command)
        shared = {key: node for key, node in self.shared.items() if key in flags}
        return self.texts({**shared, **self.sections.get(command.name, {})}, command, context)

    def texts(self, nodes: Mapping[str, Node], command: Any, context: typer.Context) -> dict[str, Text]:
        """Return the values of flags that are given, each tried on its flag.

        Raises:
            InputError: A value is not what its flag takes, or a flag that has two names is given twice.
        """
        flags, keys = flags_of(command), dict[str, str]()
        texts: dict[str, Text] = {}
        for key, node in nodes.items():
            other = keys.setdefault(flags[key].name, key)
            if other != key:
                raise self._error(
                    node, f"{key} is another name of {other}, which is given too", "Leave one of them out."
                )
            if node.value is not None:
                texts[key] = self._text(key, node, flags[key])
                self._try(key, node, texts[key], flags[key], context)
        return texts

    def check(self, commands: Mapping[str, Any], context: typer.Context) -> None:
        """Raise InputError where a key is no flag, or a section's value is not what its flag takes."""
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
        raise self._error(node, f"{key} cannot be {what}", "Give a value, as on the command line.")

    def _try(self, key: str, node: Node, text: Text, flag: Any, context: typer.Context) -> None:
        try:
            flag.process_value(context, text)
        except ClickException as error:
            shown = text if isinstance(text, str) else ", ".join(text)
            raise self._error(node, f"{key} cannot be {shown[:60]!r}", error.message) from None

    def _error(self, node: Node, message: str, hint: str = "") -> InputError:
        return InputError(f"{self.path}, line {node.line}: {message}", hint)


def load_config(path: Path, commands: Mapping[str, Any], context: typer.Context) -> Config:
    """Read a configuration and check all of it, whichever command asks.

    Args:
        path: The YAML file.
        commands: The program's commands by name.
        context: Of the command that asks.

    Raises:
        InputError: The file cannot be read, a key is no flag, or a value is not what its flag takes.
    """
    from sparsegpt_cli.framework.yaml_tree import read_tree

    tree = read_tree(path)
    sections: dict[str, dict[str, Node]] = {}
    for name, node in tree.items():
        if name not in commands:
            continue
        if not isinstance(node.value, dict | None):
            raise InputError(
                f"{path}, line {node.line}: {name} is a command, so this is its section",
                "Put its flags below it, indented.",
            )
        sections[name] = node.value or {}
    config = Config(path, {key: node for key, node in tree.items() if key not in commands}, sections)
    config.check(commands, context)
    return config


def flags_of(command: Any) -> dict[str, Any]:
    """Return what of a command may stand in a file: its flags and arguments by their names there."""
    return {_key(name): each for each in command.params if each.name not in _NOT_KEYS for name in each.opts}


def _use(context: typer.Context, path: Path | None) -> Path | None:
    """Have the file's values stand in for the flags that the command line does not give."""
    if path is None:
        return None
    session: Session = context.ensure_object(Session)
    if session.config is not None:
        raise InputError("two configurations are given", "Leave --config or CONFIG out.")
    session.config = load_config(path, context.find_root().command.commands, context)  # type: ignore[attr-defined]
    flags, texts = flags_of(context.command), session.config.for_command(context.command, context)
    context.default_map = {
        flags[key].name: partial(_refuse_folder, path, key) if FOLDER in str(text) else text
        for key, text in texts.items()
    }
    if "json" in texts:
        session.as_json |= flags["json"].process_value(context, texts["json"])
    return path


def _refuse_folder(path: Path, key: str) -> None:
    """Called where the command line does not give the flag."""
    raise InputError(f"{path}: {key} lies in {FOLDER}, the folder of run", f"Give --{key} on the command line.")


ConfigFile = Annotated[
    Path | None,
    typer.Argument(
        callback=_use, is_eager=True, help="A YAML file of flags; those given here win.", show_default=False
    ),
]
"""The CONFIG of a command, which need not look at it: its keys have become flags."""

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", callback=_use, is_eager=True, help="A YAML file of flags; those given here win."),
]


def _key(option: str) -> str:
    return option.lstrip("-").replace("_", "-")


def _nearest(key: str, known: Iterable[str]) -> str:
    close = get_close_matches(key, sorted(known), 1)
    return f"Did you mean {close[0]}?" if close else "Keys are flags without the dashes before them; --help lists them."


def _negated(key: str, command: Any) -> str:
    """Say how a flag's opposite is written, where the key is one."""
    opposites = {_key(name): _key(each.opts[0]) for each in command.params for name in each.secondary_opts}
    return f"Write {opposites[key]}: false." if key in opposites else ""
