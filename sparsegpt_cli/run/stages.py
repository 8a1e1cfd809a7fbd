"""The stages of a run: what a configuration's sections become, with the files that flow from one to the next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from sparsegpt_cli.framework import FOLDER, ClickException, Config, Session, Text, flags_of
from sparsegpt_core.errors import InputError

__all__ = ["FLOWS", "OUTPUTS", "Flow", "Stage", "resolve"]

OUTPUTS = ("out", "plans", "timing_cache")
"""Options that say where a stage writes."""

_INTO = {"report": ("run",)}  # folders of earlier stages to which something is added
_OF_RUN = ("out", "seed", "quiet", "json")  # at the top they are run's own


@dataclass(frozen=True)
class Flow:
    """How files come to a stage and go on from it.

    Args:
        reads: Flag → kinds of file it takes, the first of which an earlier stage left.
        out: The name in the run's folder that ``--out`` gets; {} is that of the first file it reads; None: no flag.
        leaves: Kind → where it lies, seen from ``out``.
    """

    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    out: str | None = None
    leaves: Mapping[str, str] = field(default_factory=dict)


# Kinds: the dense checkpoint; the latest checkpoint; the dense, the latest and the latest typed ONNX file; what predict
# says; and the folder that report reads.
FLOWS = {
    "train": Flow({}, "dense.safetensors", {"dense": "", "checkpoint": ""}),
    "prune": Flow({"weights": ("dense",), "profile": ("profile",)}, "sparse.safetensors", {"checkpoint": ""}),
    "prune-export": Flow(
        {"weights": ("dense",), "profile": ("profile",)},
        "",
        {
            "checkpoint": "sparse.safetensors",
            "dense.onnx": "dense.onnx",
            "onnx": "sparse.onnx",
            "typed": "sparse.fp16.onnx",
            "folder": "",
        },
    ),
    "finetune": Flow({"weights": ("checkpoint",), "dense": ("dense",)}, "finetuned.safetensors", {"checkpoint": ""}),
    "export": Flow({"weights": ("checkpoint",)}, "{}.onnx", {"onnx": "", "typed": ""}),
    "verify": Flow({"model": ("onnx",)}),
    "predict": Flow({"model": ("dense.onnx", "onnx")}, "predict.json", {"profile": ""}),
    "build": Flow({"model": ("typed",)}, "{}.plan"),
    "benchmark": Flow({"dense": ("dense.onnx",), "sparse": ("onnx",)}, "benchmark.json"),
    "sweep": Flow({"weights": ("dense",)}, "sweep"),
    "explain": Flow({"model": ("onnx",)}),
    "report": Flow({"run": ("folder",)}),
    "triton-export": Flow({"model": ("onnx",)}, "triton"),
}
"""The commands that can be stages."""


@dataclass(frozen=True)
class Stage:
    """A command with all that it is given.

    Args:
        name: The command.
        arguments: What stands behind its name on the command line.
        options: Every flag's value, defaults too, as JSON has it, with ``$OUT`` for the run's folder.
        after: The stages before it.
    """

    name: str
    arguments: tuple[str, ...]
    options: Mapping[str, Any]
    after: tuple[str, ...]

    @property
    def line(self) -> str:
        """The stage as a shell takes it."""
        return shlex.join(["sparsegpt-trt", self.name, *self.arguments])


def resolve(config: Config, out: Path, seed: int, context: typer.Context) -> list[Stage]:
    """Turn sections into stages, in the order in which they stand; nothing is run and no data is read.

    Of a flag's values the section's own wins, then the file that an earlier stage leaves, then the shared one, then the
    command's default.

    Args:
        config: Its sections that are no stages are left out.
        out: The run's folder.
        seed: For stages without one of their own.
        context: Of the command that runs them.

    Raises:
        InputError: A stage lacks something, a value is not what its flag takes, or a file would be written outside
            ``out`` or over another stage's.
    """
    flowing = _Flowing(config, out)
    names = [name for name in config.sections if name in FLOWS]
    return [flowing.stage(name, tuple(names[:place]), seed, context) for place, name in enumerate(names)]


class _Flowing:
    """The files that the stages so far leave: their kinds, and whose they are."""

    def __init__(self, config: Config, out: Path) -> None:
        self._config, self._out = config, out
        self._left: dict[str, str] = {}
        self._owners: dict[str, str] = {}

    def stage(self, name: str, after: tuple[str, ...], seed: int, context: typer.Context) -> Stage:
        root = context.find_root()
        command = root.command.commands[name]  # type: ignore[attr-defined]
        flags = flags_of(command)
        texts = self._texts(name, command, context)
        if "seed" not in self._config.sections[name] and seed:
            texts["seed"] = str(seed)
        self._check_outputs(name, texts)
        arguments = _arguments(texts, flags, context)
        try:
            with command.make_context(name, list(arguments), parent=root, obj=Session()) as parsed:
                values = {flag.name: parsed.params[flag.name] for flag in flags.values()}
        except ClickException as error:
            message = f"{self._config.path}: {name}: {error.format_message().rstrip('.')}"
            raise InputError(message, f"sparsegpt-trt {name} --help lists its flags.") from None
        self._leave(name, texts)
        options = {name: self._portable(value) for name, value in values.items() if name not in ("as_json", "quiet")}
        return Stage(name, arguments, options, after)

    def _texts(self, name: str, command: Any, context: typer.Context) -> dict[str, Text]:
        flow, flags, own = FLOWS[name], flags_of(command), self._config.sections[name]
        shared = {key: node for key, node in self._config.shared.items() if key in flags and key not in _OF_RUN}
        texts = self._config.texts({**shared, **own}, command, context)
        for key, kinds in flow.reads.items():
            found = next((self._left[kind] for kind in kinds if kind in self._left), None)
            if found is not None and key not in own:
                texts[key] = [found] if getattr(flags[key], "multiple", False) else found
        texts = {key: _placed(text, self._out) for key, text in texts.items()}
        if flow.out is not None and "out" not in own:
            first = texts.get(next(iter(flow.reads), ""), name)
            texts["out"] = str(self._out / flow.out.format(Path(str(first)).stem))
        return texts

    def _check_outputs(self, name: str, texts: Mapping[str, Text]) -> None:
        for key in (*(output.replace("_", "-") for output in OUTPUTS), *_INTO.get(name, ())):
            text = texts.get(key)
            if not isinstance(text, str):
                continue
            if not Path(text).resolve().is_relative_to(self._out.resolve()):
                raise InputError(
                    f"{self._config.path}: {name}: {key} is {text}, outside {self._out}", f"Write {FOLDER}/NAME."
                )
            if text in self._owners and key not in _INTO.get(name, ()):
                raise InputError(
                    f"{self._config.path}: {name}: {key} is {text}, which {self._owners[text]} writes",
                    f"Write another name: {key}: {FOLDER}/NAME.",
                )

    def _leave(self, name: str, texts: Mapping[str, Text]) -> None:
        given = texts.get("weights")
        if name in ("prune", "prune-export") and isinstance(given, str):
            self._left["dense"] = given
        if isinstance(out := texts.get("out"), str):
            self._left |= {kind: str(Path(out) / place) for kind, place in FLOWS[name].leaves.items()}
            self._owners |= dict.fromkeys([out, *(self._left[kind] for kind in FLOWS[name].leaves)], name)

    def _portable(self, value: Any) -> Any:
        """Return a value as JSON has it, and the same wherever the run's folder is."""
        if isinstance(value, list | tuple):
            return [self._portable(each) for each in value]
        if isinstance(value, str | Path):
            text, folder = str(value), str(self._out)
            return FOLDER + text[len(folder) :] if text == folder or text.startswith(f"{folder}/") else text
        return value


def _placed(text: Text, out: Path) -> Text:
    if isinstance(text, str):
        return text.replace(FOLDER, str(out))
    return [each.replace(FOLDER, str(out)) for each in text]


def _arguments(texts: Mapping[str, Text], flags: Mapping[str, Any], context: typer.Context) -> tuple[str, ...]:
    """Return values as they stand on the command line: arguments first, in their order, then flags."""
    arguments: list[str] = []
    options: list[str] = []
    for key, flag in flags.items():
        text = texts.get(key)
        if text is None:
            continue
        if flag.param_type_name == "argument":
            arguments.append(str(text))
        elif getattr(flag, "is_flag", False):
            names = flag.opts if flag.process_value(context, text) else flag.secondary_opts
            options += names[:1]
        else:
            for each in [text] if isinstance(text, str) else text:
                options += [f"--{key}", each]
    return (*arguments, *options)
