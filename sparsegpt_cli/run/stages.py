"""The stages of a run: the sections of a configuration, with the files that each stage takes from earlier ones."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from sparsegpt_cli.framework import FOLDER, ClickException, Config, Session, Text, flags_of
from sparsegpt_core.errors import InputError

__all__ = ["OUTPUTS", "STAGE_FILES", "Stage", "StageFiles", "check_precision", "resolve"]

OUTPUTS = ("out", "plans", "timing_cache", "export_layers")
"""Options that name a stage's output paths."""

_DATA = ("data", "data-root", "eval-data")  # flags that a stage takes from the one before if it names no data
_EXTENDED = {"report": ("run",)}  # options that name a folder of an earlier stage, to which the stage adds files
_NOT_SHARED = ("out", "seed", "quiet", "json")  # at the top level they are flags of run itself


@dataclass(frozen=True)
class StageFiles:
    """The files that a stage takes from earlier stages and leaves for later ones."""

    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Flag → kinds of file. The flag gets the first kind that an earlier stage has written."""
    out: str | None = None
    """``--out`` relative to the run's folder; {} stands for the name of the first file read; None: no such flag."""
    writes: Mapping[str, str] = field(default_factory=dict)
    """Kind → path relative to ``out``."""


# Kinds of file: dense is the dense checkpoint, checkpoint the latest; dense.onnx the dense ONNX file, onnx the latest
# one, typed the latest for an engine
# and dense.typed the dense one in its precision; profile the result of predict; folder the folder that report reads.
STAGE_FILES = {
    "train": StageFiles({}, "dense.safetensors", {"dense": "", "checkpoint": ""}),
    "prune": StageFiles({"weights": ("dense",), "profile": ("profile",)}, "sparse.safetensors", {"checkpoint": ""}),
    "prune-export": StageFiles(
        {"weights": ("dense",), "profile": ("profile",)},
        "",
        {
            "checkpoint": "sparse.safetensors",
            "dense.onnx": "dense.onnx",
            "onnx": "sparse.onnx",
            "dense.typed": "dense.fp16.onnx",
            "typed": "sparse.fp16.onnx",
            "folder": "",
        },
    ),
    "finetune": StageFiles(
        {"weights": ("checkpoint",), "dense": ("dense",)}, "finetuned.safetensors", {"checkpoint": ""}
    ),
    "export": StageFiles({"weights": ("checkpoint",)}, "{}.onnx", {"onnx": "", "typed": ""}),
    "verify": StageFiles({"model": ("onnx",)}),
    "predict": StageFiles({"model": ("dense.onnx", "onnx")}, "predict.json", {"profile": ""}),
    "build": StageFiles({"model": ("typed",)}, "{}.plan"),
    "benchmark": StageFiles({"dense": ("dense.typed",), "sparse": ("typed",)}, "benchmark.json"),
    "sweep": StageFiles({"weights": ("dense",)}, "sweep"),
    "explain": StageFiles({"model": ("onnx",)}),
    "report": StageFiles({"run": ("folder",)}),
    "triton-export": StageFiles({"model": ("onnx",)}, "triton"),
}
"""The commands that can be stages."""


@dataclass(frozen=True)
class Stage:
    """A command with its arguments."""

    name: str
    """The command."""
    arguments: tuple[str, ...]
    """The command line after the command."""
    options: Mapping[str, Any]
    """The value of every flag, with defaults, as JSON values; ``$OUT`` stands for the run's folder."""
    after: tuple[str, ...]
    """The names of the stages before it."""

    @property
    def line(self) -> str:
        """The stage as a line of shell."""
        return shlex.join(["sparsegpt-trt", self.name, *self.arguments])


def resolve(config: Config, out: Path, seed: int, context: typer.Context) -> list[Stage]:
    """Turn sections into stages, in their order. No stage is run, and no data is read.

    The value of a flag is that of its section, else a file of an earlier stage, else the shared value, else for data
    that of an earlier stage, else the command's default.

    Args:
        config: The configuration. Its sections that are not stages are ignored.
        out: The run's folder.
        seed: The seed of stages that have none of their own.
        context: The context of the command that runs the stages.

    Raises:
        InputError: A required flag has no value, a value is not valid for its flag, or a stage would write outside
            ``out`` or over a file of another stage.
    """
    resolver = _Resolver(config, out)
    names = [name for name in config.sections if name in STAGE_FILES]
    return [resolver.stage(name, tuple(names[:place]), seed, context) for place, name in enumerate(names)]


def check_precision(stages: Sequence[Stage]) -> None:
    """Check that no engines will be benchmarked from an FP32 file, before the stages that make the file run.

    ONNX Runtime's CPU kernels take FP32 too, so ``auto`` without a GPU and a backend passes.

    Raises:
        InputError: A benchmark of engines gets the FP32 file of an export, or its runtime does not work here.
        MissingDependencyError: A library that its runtime needs is not installed.
    """
    from deploy.machine import find_runtime

    fp32 = {stage.options["out"] for stage in stages if stage.name == "export" and stage.options["precision"] == "fp32"}
    for stage in stages:
        if stage.name != "benchmark" or stage.options["sparse"] not in fp32:
            continue
        runtime = stage.options["runtime"]
        if find_runtime(runtime)[0] or runtime == "onnxruntime-tensorrt":
            raise InputError(
                f"benchmark: {stage.options['sparse']} will be FP32, for which TensorRT has no sparse kernels",
                "Set precision: fp16 in the section export, or runtime: onnxruntime in the section benchmark.",
            )


class _Resolver:
    """Makes stages one after another, and keeps the files that they will write."""

    def __init__(self, config: Config, out: Path) -> None:
        self._config, self._out = config, out
        self._files: dict[str, str] = {}  # kind → the latest file of this kind
        self._writers: dict[str, str] = {}  # file → the stage that writes it
        self._data: dict[str, Text] = {}  # flags of the latest stage that names data

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
        self._add_files(name, texts)
        options = {name: self._portable(value) for name, value in values.items() if name not in ("as_json", "quiet")}
        return Stage(name, arguments, options, after)

    def _texts(self, name: str, command: Any, context: typer.Context) -> dict[str, Text]:
        files, flags, own = STAGE_FILES[name], flags_of(command), self._config.sections[name]
        shared = {key: node for key, node in self._config.shared.items() if key in flags and key not in _NOT_SHARED}
        texts = self._config.texts({**shared, **own}, command, context)
        if "data" in texts:
            self._data = {key: texts[key] for key in _DATA if key in texts}
        else:  # a model's file may record a folder of another machine, or none
            texts |= {key: text for key, text in self._data.items() if key in flags}
        for key, kinds in files.reads.items():
            found = next((self._files[kind] for kind in kinds if kind in self._files), None)
            if found is not None and key not in own:
                texts[key] = [found] if getattr(flags[key], "multiple", False) else found
        texts = {key: _in_folder(text, self._out) for key, text in texts.items()}
        if files.out is not None and "out" not in own:
            first = texts.get(next(iter(files.reads), ""), name)
            texts["out"] = str(self._out / files.out.format(Path(str(first)).stem))
        return texts

    def _check_outputs(self, name: str, texts: Mapping[str, Text]) -> None:
        for key in (*(output.replace("_", "-") for output in OUTPUTS), *_EXTENDED.get(name, ())):
            text = texts.get(key)
            if not isinstance(text, str):
                continue
            if not Path(text).resolve().is_relative_to(self._out.resolve()):
                raise InputError(
                    f"{self._config.path}: {name}: {key} is {text}, outside {self._out}", f"Write {FOLDER}/NAME."
                )
            if text in self._writers and key not in _EXTENDED.get(name, ()):
                raise InputError(
                    f"{self._config.path}: {name}: {key} is {text}, which {self._writers[text]} also writes",
                    f"Write another name: {key}: {FOLDER}/NAME.",
                )

    def _add_files(self, name: str, texts: Mapping[str, Text]) -> None:
        given = texts.get("weights")
        if name in ("prune", "prune-export") and isinstance(given, str):
            self._files["dense"] = given
        if isinstance(out := texts.get("out"), str):
            self._files |= {kind: str(Path(out) / place) for kind, place in STAGE_FILES[name].writes.items()}
            if name == "export" and "folder" in self._files:
                precision = str(texts.get("precision", "fp32"))
                ending = "" if precision == "fp32" else f".{precision}"
                self._files["dense.typed"] = str(Path(self._files["folder"]) / f"dense{ending}.onnx")
            self._writers |= dict.fromkeys([out, *(self._files[kind] for kind in STAGE_FILES[name].writes)], name)

    def _portable(self, value: Any) -> Any:
        """Return a value as JSON, with ``$OUT`` in place of the run's folder."""
        if isinstance(value, list | tuple):
            return [self._portable(each) for each in value]
        if isinstance(value, str | Path):
            text, folder = str(value), str(self._out)
            return FOLDER + text[len(folder) :] if text == folder or text.startswith(f"{folder}/") else text
        return value


def _in_folder(text: Text, out: Path) -> Text:
    """Replace ``$OUT`` by the run's folder."""
    if isinstance(text, str):
        return text.replace(FOLDER, str(out))
    return [each.replace(FOLDER, str(out)) for each in text]


def _arguments(texts: Mapping[str, Text], flags: Mapping[str, Any], context: typer.Context) -> tuple[str, ...]:
    """Return values as a command line: first arguments in their order, then flags."""
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
