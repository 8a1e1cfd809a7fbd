"""What deploy uses of TensorRT's Python bindings, read from its source, and whether a version of them has it.

    python -m tests.support.tensorrt_names MODULE < uses.json

prints a JSON object with the names that the module lacks and the calls that it would refuse.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tests.support.paths import ROOT

# What an expression is, by file: a class of the bindings, or "" for the module itself.
RECEIVERS = {
    "deploy/machine/backends.py": {"backend.module": "", "module": ""},
    "deploy/builder/compiler.py": {
        "trt": "",
        "backend.module": "",
        "config": "IBuilderConfig",
        "severity": "ILogger.Severity",
    },
    "deploy/builder/inspector.py": {"trt": "", "engine": "ICudaEngine"},
    "deploy/builder/progress_monitor.py": {"trt": ""},
    "deploy/sessions/engine.py": {
        "trt": "",
        "self.backend.module": "",
        "self._runtime": "Runtime",
        "self._engine": "ICudaEngine",
        "strategies": "DynamicShapesKernelSpecializationStrategy",
        "config": "IRuntimeConfig",
    },
    "deploy/sessions/inference_stream.py": {
        "self._context": "IExecutionContext",
        "ask": "IExecutionContext.is_stream_capturable",
    },
    "deploy/measure/layer_times.py": {"trt": ""},
}

# What a method returns, where deploy uses the result in the same expression.
RETURNS = {
    "IBuilderConfig.create_timing_cache": "ITimingCache",
    "IBuilderConfig.get_timing_cache": "ITimingCache",
    "ICudaEngine.create_engine_inspector": "EngineInspector",
}


@dataclass(frozen=True)
class Use:
    """A name of the bindings, such as ``Runtime.deserialize_cuda_engine``, and how it is called."""

    name: str
    optional: bool = False
    """Whether the source asks before it uses the name."""
    positional: int | None = None
    """Positional arguments of a call; None where the name is not called."""
    keywords: tuple[str, ...] = ()
    """Keyword arguments of the call."""


def find_uses() -> list[Use]:
    """Return every use in deploy's source, sorted. A name that is asked for anywhere is optional everywhere."""
    found = {use for file in RECEIVERS for use in _uses((ROOT / file).read_text(), RECEIVERS[file])}
    optional = {use.name for use in found if use.optional}
    known = {Use(**{**asdict(use), "optional": use.name in optional}) for use in found}
    return sorted(known, key=lambda use: (use.name, use.positional is not None, use.keywords))


def _uses(source: str, receivers: dict[str, str]) -> Iterator[Use]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and (name := name_of(node, receivers)) and not node.attr.startswith("__"):
            yield Use(name)
        if isinstance(node, ast.Call):
            yield from _calls(node, receivers)
        if isinstance(node, ast.ClassDef):
            own = {
                each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)
            }  # what the class itself calls
            methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)} - own
            for owner in filter(None, (name_of(base, receivers) for base in node.bases)):
                yield from (Use(f"{owner}.{method}") for method in methods if not method.startswith("_"))


def _calls(node: ast.Call, receivers: dict[str, str]) -> Iterator[Use]:
    asked = isinstance(node.func, ast.Name) and node.func.id in {"hasattr", "getattr"}
    if asked and isinstance(node.args[1], ast.Constant):
        owner = name_of(node.args[0], receivers)
        if owner is not None and not node.args[1].value.startswith("__"):
            yield Use(_join(owner, node.args[1].value), optional=True)
        return
    name = name_of(node.func, receivers)
    if name and not name.endswith(".__init__"):
        yield Use(name, False, len(node.args), tuple(sorted(each.arg or "**" for each in node.keywords)))


def name_of(node: ast.expr, receivers: dict[str, str]) -> str | None:
    """Return the name of the bindings that an expression is; None where it is something else."""
    if ast.unparse(node) in receivers:
        return receivers[ast.unparse(node)]
    if isinstance(node, ast.Call):
        return RETURNS.get(name_of(node.func, receivers) or "")
    if isinstance(node, ast.Attribute):
        owner = name_of(node.value, receivers)
        return None if owner is None else _join(owner, node.attr)
    return None


def _join(owner: str, name: str) -> str:
    return f"{owner}.{name}" if owner else name


def missing_names(module: Any, names: list[str]) -> list[str]:
    """Return what the bindings lack: names, or the classes that would have them."""
    return sorted({missing for name in names if (missing := _missing(module, name))})


def refused_calls(module: Any, uses: list[Use]) -> dict[str, str]:
    """Return the calls whose arguments no signature takes, with the signatures that pybind11 writes into docstrings."""
    refused = {}
    for use in uses:
        if use.positional is not None and not _missing(module, use.name):
            signatures = _signatures(module, use.name)
            if not any(_takes(parameters, use) for parameters in signatures):
                arguments = [*"_" * use.positional, *(f"{keyword}=" for keyword in use.keywords)]
                refused[f"{use.name}({', '.join(arguments)})"] = str(signatures)
    return refused


def _missing(owner: Any, name: str) -> str:
    """Return the start of the name that is missing; empty where all of it exists."""
    parts = name.split(".")
    for count, part in enumerate(parts, start=1):
        if not hasattr(owner, part):
            return ".".join(parts[:count])
        owner = getattr(owner, part)
    return ""


def _signatures(module: Any, name: str) -> list[list[tuple[str, bool]]]:
    """Return each overload's parameters after self: their names, and whether they have a default."""
    for part in name.split("."):
        module = getattr(module, part)
    method = getattr(module, "__init__", module) if isinstance(module, type) else module
    function = method.__name__
    found = re.findall(rf"^(?:\d+\. )?{function}\((.*)\) -> ", method.__doc__ or "", re.MULTILINE)
    overloads = [[part for part in _split(text) if part] for text in found if text != "*args, **kwargs"]
    return [
        [(part.partition(":")[0], " = " in part) for part in parts if part.partition(":")[0] != "self"]
        for parts in overloads
    ]


def _split(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([{<") - (sign in ")]}>")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def _takes(parameters: list[tuple[str, bool]], use: Use) -> bool:
    given = use.positional or 0
    rest = dict(parameters[given:])
    needed = {name for name, has_default in rest.items() if not has_default}
    return given <= len(parameters) and needed <= set(use.keywords) <= set(rest)


if __name__ == "__main__":
    bindings = importlib.import_module(sys.argv[1])
    asked = json.load(sys.stdin)
    all_uses = [Use(**{**use, "keywords": tuple(use["keywords"])}) for use in asked["uses"]]
    report = {
        "version": bindings.__version__,
        "missing": missing_names(bindings, [*(use.name for use in all_uses), *asked["names"]]),
        "refused": refused_calls(bindings, all_uses),
    }
    sys.stdout.write(json.dumps(report))
