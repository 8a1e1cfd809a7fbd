"""Imports what the user names in a module or in a file: a network, a metric, a data loader. Runs that code."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import operator
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from sparsegpt_core.errors import InputError, first_line

__all__ = ["import_object", "source_file", "source_sha256"]


def import_object(spec: str) -> Any:
    """Import a module or a file, and return the object that has a name in it.

    Modules are also found in the current folder, and those that a file imports also next to the file, but only after
    the installed packages. A file is imported once.

    Args:
        spec: ``package.module:name`` or ``path/to/file.py:name``. The name may have dots.

    Raises:
        InputError: The module or file cannot be imported, or has no such name.

    Example:
        >>> import_object("math:sqrt")(4.0)
        2.0
    """
    source, _, name = spec.rpartition(":")
    try:
        module = _import_file(source) if source.endswith(".py") else _import_module(source)
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise InputError(
            f"cannot import {name} from {source}: {first_line(error)}",
            "Give package.module:NAME, importable from here, or path/to/FILE.py:NAME.",
        ) from error
    try:
        return operator.attrgetter(name)(module)
    except AttributeError:
        own = [each for each in vars(module) if not each.startswith("_")]
        near = difflib.get_close_matches(name, own, n=1)
        hint = f"Did you mean {source}:{near[0]}?" if near else f"It has {', '.join(own) or 'no public names'}."
        raise InputError(f"{source} has no {name}", hint) from None


def source_file(spec: str) -> Path | None:
    """Return the file that :func:`import_object` would import; None if no such file is found. Runs no code.

    Args:
        spec: As for :func:`import_object`.

    Example:
        >>> source_file("json.decoder:JSONDecoder").name
        'decoder.py'
        >>> source_file("no.such_module:name") is None
        True
    """
    source = spec.rpartition(":")[0]
    if source.endswith(".py"):
        places = [Path(source).expanduser()]
    else:
        inside = source.replace(".", "/")
        places = [
            Path(folder, file) for folder in (*sys.path, "") for file in (f"{inside}/__init__.py", f"{inside}.py")
        ]
    return next((place for place in places if place.is_file()), None) if source else None


def source_sha256(spec: str) -> str | None:
    """Return the SHA-256 of :func:`source_file`; None without a file.

    Example:
        >>> _ = Path("mynet.py").write_text("net = 1")
        >>> source_sha256("mynet.py:net")[:16]
        '573d744cde0b9659'
    """
    file = source_file(spec)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else None


def _import_module(name: str) -> ModuleType:
    _append_to_path(Path.cwd())
    return importlib.import_module(name)


def _import_file(source: str) -> ModuleType:
    """Import a file once, under a name that no other module has."""
    path = Path(source).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    name = f"user_code_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    _append_to_path(path.parent)
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None  # both are None only for other suffixes
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # where dataclasses look for the module of a class
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _append_to_path(folder: Path) -> None:
    """Let imports find the modules in a folder. It comes last, because it must not shadow installed packages."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
