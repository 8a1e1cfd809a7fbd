"""A YAML file as text with line numbers. No object is constructed, and no type is guessed.

YAML would read ``2:4`` as the number 124, ``1e-3`` as a word and ``no`` as false. Here every value is text, as on the
command line, and its flag converts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from sparsegpt_core.errors import InputError

__all__ = ["Node", "read_tree"]

_MAX_BYTES = 64 * 1024  # PyYAML needs up to two seconds for it
_MAX_DEPTH = 3  # levels: the file, a section, a list


@dataclass(frozen=True)
class Node:
    """A value and its line; None is YAML's null."""

    value: str | list[Node] | dict[str, Node] | None
    line: int


def read_tree(path: Path) -> dict[str, Node]:
    """Read a file that contains one mapping of text, lists and mappings.

    Raises:
        InputError: The file cannot be read, is not such a YAML file, is too large or nested too deep, contains a key
            twice, or contains tags, anchors or aliases.
    """
    text = _read(path)
    try:
        return _document(yaml.parse(text, Loader=yaml.SafeLoader))
    except _RefusedError as error:
        raise InputError(f"{path}, line {error.line}: {error}", error.hint) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        hint = "Indent with spaces, not with tabs." if "\\t" in str(error.problem) else "See docs/config.md."
        raise InputError(f"{path}, line {line}: {error.problem}", hint) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML does not wrap the errors of some escapes
        raise InputError(f"{path} is not a YAML file: {str(error).splitlines()[0]}", "See docs/config.md.") from error


class _RefusedError(Exception):
    """A line is not allowed."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line, self.hint = line, hint


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise InputError(f"{path} is larger than {_MAX_BYTES // 1024} KiB", "Give a YAML file of flags.")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "Give a YAML file.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", "Give a YAML file.") from error


def _document(events: Iterator[Any]) -> dict[str, Node]:
    found: dict[str, Node] | None = None
    for event in events:
        if isinstance(event, yaml.NodeEvent):
            if found is not None:
                raise _RefusedError(_line(event), "a second document starts here", "Use one file for each document.")
            if not isinstance(event, yaml.MappingStartEvent):
                raise _RefusedError(
                    _line(event), "this is not a mapping of keys to values", "For example samples: 256."
                )
            _refuse_marks(event)
            found = _mapping(events, 1)
    if found is None:
        raise _RefusedError(1, "the file is empty", "For example samples: 256.")
    return found


def _node(event: Any, events: Iterator[Any], depth: int) -> Node:
    line = _line(event)
    _refuse_marks(event)
    if isinstance(event, yaml.ScalarEvent):
        return Node(_text(event), line)
    if depth == _MAX_DEPTH:
        raise _RefusedError(
            line, "this is nested too deep", "Sections contain flags; flags have text or lists of text."
        )
    if isinstance(event, yaml.SequenceStartEvent):
        items = takewhile(lambda each: not isinstance(each, yaml.SequenceEndEvent), events)
        return Node([_node(item, events, depth + 1) for item in items], line)
    return Node(_mapping(events, depth + 1), line)


def _mapping(events: Iterator[Any], depth: int) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for each in takewhile(lambda each: not isinstance(each, yaml.MappingEndEvent), events):
        _refuse_marks(each)
        key = _text(each) if isinstance(each, yaml.ScalarEvent) else None
        if key is None:
            raise _RefusedError(_line(each), "a key is not text", "For example samples: 256.")
        if key in found:
            raise _RefusedError(_line(each), f"{key!r} is here again; it is first in line {found[key].line}")
        found[key] = Node(_node(next(events), events, depth).value, _line(each))
    return found


def _refuse_marks(event: Any) -> None:
    if isinstance(event, yaml.AliasEvent) or event.anchor:
        raise _RefusedError(_line(event), "anchors and aliases are not allowed", "Write the value in full.")
    if event.tag:
        raise _RefusedError(_line(event), "tags are not allowed", "Values are text, as on the command line.")


def _text(event: Any) -> str | None:
    if event.implicit[0] and event.value in ("", "~", "null"):
        return None
    if not event.value.isprintable():
        raise _RefusedError(_line(event), "the text contains control characters", "Write it in one line.")
    return str(event.value)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
