"""The fuzzer's targets: for each reader its seeds and their mutator."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import torch
import typer

from benchmarks.fuzz.mutate import LARGEST, mutate_bytes, mutate_json, mutate_lines
from benchmarks.fuzz.mutate_onnx import mutate_onnx
from benchmarks.fuzz.mutate_tensors import mutate_safetensors
from calibration.training import parse_pruning_metadata
from deploy.builder import count_memory_skips, load_plan, read_sparsity
from deploy.builder.inspector import read_layers
from deploy.builder.timing_cache import load_timing_cache
from deploy.explain.plan_inspection import evidence_of_plan
from deploy.graph import graph_signature, read_graph, resolve_shapes
from deploy.predict import predict, read_profile
from export.audit import audit_model, read_metadata
from export.audit import load_model as load_model_file
from export.importing import OnnxNetwork
from export.triton import TritonSettings, write_repository
from sparsegpt_cli.app import app
from sparsegpt_cli.framework import Session, load_config
from sparsegpt_cli.jobs.datasets import DataSource, open_dataset
from sparsegpt_cli.jobs.models import ModelSource, load_model
from sparsegpt_cli.jobs.plan_signature import read_signature
from sparsegpt_cli.report import render, render_report
from sparsegpt_cli.run import resolve
from sparsegpt_cli.run.record import RunRecord
from sparsegpt_cli.run.stages import Stage
from sparsegpt_cli.sweep.cell_store import CellStore
from sparsegpt_cli.terminal import Console
from sparsegpt_core.checkpoints import load_checkpoint, load_int8
from sparsegpt_core.errors import InputError, SparseGPTError
from sparsegpt_core.files import check_model_metadata
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings

__all__ = ["TARGETS", "Target"]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RUN, ONNX = HERE / "corpus/run", HERE / "corpus/onnx"

Mutator = Callable[[random.Random, bytes], bytes]
_GROUP: Any = typer.main.get_command(app)
_QUIET = Console(quiet=True)
_SIZES, _MAX_SIZE = (2, 8), 64  # of a dynamic batch and another dynamic axis, and of any axis
_MAX_NUMBERS = 1 << 20
_NUMBERS = (1, 2, 3, 5, 6, 7, 9, 10, 11)  # ONNX's types that PyTorch has too
_CHARTS = ("layer_charts", "tradeoff_chart", "accuracy_chart", "arms_chart", "distribution_chart")


@dataclass(frozen=True)
class Target:
    """One reader.

    Args:
        seeds: The files to change.
        mutate: Changes a file's content.
        name: The name of the changed file in its folder.
        read: Reads the changed file, and uses its content as the program does.
        beside: A folder with files that belong next to it.
    """

    seeds: tuple[Path, ...]
    mutate: Mutator
    name: str
    read: Callable[[Path], object]
    beside: Path | None = None

    def make(self, rng: random.Random) -> bytes:
        """Return an input."""
        return self.mutate(rng, rng.choice(self.seeds).read_bytes())

    def plain(self) -> bytes:
        """Return an unchanged seed."""
        return self.seeds[0].read_bytes()

    def lay_out(self, folder: Path) -> Path:
        """Prepare a folder; return the path for inputs."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.beside:
            shutil.copytree(self.beside, folder, dirs_exist_ok=True)
            if (weights := folder / "sparse.safetensors").exists():
                shutil.copyfile(weights, folder / "input.safetensors")  # not in the manifest
        return folder / self.name


def _audit(path: Path) -> None:
    json.dumps(audit_model(path).to_json(), allow_nan=False)


def _predict(path: Path) -> None:
    found = predict(path)
    json.dumps({**found.to_json(), "verdict": found.verdict})


def _prune_file(path: Path) -> None:
    """Prune a file with two samples of noise in the shapes and types that it states."""
    model = load_model_file(path)
    network = OnnxNetwork(model)
    kinds = {each.name: each.type.tensor_type.elem_type for each in model.graph.input}
    chance = np.random.default_rng(0)
    noise = []
    for name, shape in network.input_shapes.items():
        sizes = [min(abs(size or _SIZES[axis > 0]), _MAX_SIZE) for axis, size in enumerate(shape)]
        if math.prod(sizes) > _MAX_NUMBERS:
            raise InputError("the noise would be too large")
        kind = onnx.helper.tensor_dtype_to_np_dtype(kinds[name]) if kinds[name] in _NUMBERS else np.float32
        noise.append(torch.from_numpy(np.asarray(chance.standard_normal(sizes), kind)))
    prune_model(network, [tuple(noise)], PruneSettings(include=("*",)))
    network.to_onnx()


def _graph(path: Path) -> None:
    graph = read_graph(path)
    graph_signature(graph, resolve_shapes(graph.inputs, None))
    open_dataset(DataSource("digits"), check_model_metadata(read_metadata(graph.model), path))


def _triton(path: Path) -> None:
    before = {*path.parent.rglob("*")}
    repository = path.parent / "repository"
    try:
        write_repository(path, repository, TritonSettings("m"))
        strays = {each for each in path.parent.rglob("*") if repository not in (each, *each.parents)} - before
        if strays:
            raise AssertionError(f"written outside the repository: {strays}")
    finally:
        shutil.rmtree(repository, ignore_errors=True)


def _checkpoint(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    opened = open_dataset(DataSource("digits"), checkpoint.metadata)
    parse_pruning_metadata(checkpoint.metadata)
    load_model(ModelSource("", path), checkpoint, opened.image_shape, _QUIET, opened.num_classes)


def _int8_weights(path: Path) -> None:
    load_int8(path.with_name("input.safetensors"))


def _manifest(path: Path) -> None:
    _all_of(
        lambda: load_checkpoint(path.with_name("sparse.safetensors")),
        lambda: _page(path.parent),
    )


def _page(run: Path) -> None:
    """Render a report without its charts, which take seconds and do not read the manifest."""
    nothing: dict[str, Any] = dict.fromkeys(_CHARTS, lambda *_: [])
    with mock.patch.multiple(render, **nothing):
        render_report(run)


def _sidecar(path: Path) -> None:
    plan = path.with_suffix("")
    _all_of(
        lambda: load_plan(plan),
        lambda: evidence_of_plan(plan, True, inspected=False),
        lambda: read_signature(plan),
        lambda: _page(path.parent),
    )


def _prune_json(path: Path) -> None:
    _all_of(lambda: render_report(path.parent), lambda: read_profile(path))


def _config(path: Path) -> None:
    new: Any = typer.Context
    with new(_GROUP, obj=Session()) as root, new(_GROUP.commands["run"], parent=root) as context:
        config = load_config(path, _GROUP.commands, context)
        resolve(config, path.parent / "out", 0, context)


def _build_log(path: Path) -> None:
    lines = path.read_text(errors="replace").splitlines()
    read_sparsity(lines)
    count_memory_skips(lines)


def _inspector(path: Path) -> None:
    for layer in read_layers(path.read_text(errors="replace")):
        str(layer.sparse)


def _run_record(path: Path) -> None:
    record = RunRecord(path.parent)
    record.changes(Stage("verify", (), {"model": "sparse.onnx"}, ()))


def _cell(path: Path) -> None:
    store = CellStore(path.parent)
    store.read("cell", {"seed": 0, "settings": {"alpha": 1.0}})
    store.changed("cell", {"seed": 1})


def _all_of(*readers: Callable[[], object]) -> None:
    """Read in several ways; refuse if one of them refuses."""
    refused: SparseGPTError | None = None
    for reader in readers:
        try:
            reader()
        except SparseGPTError as error:
            refused = error
    if refused:
        raise refused


def _in_run(name: str, mutate: Mutator, read: Callable[[Path], object]) -> Target:
    return Target((RUN / name,), mutate, name, read, RUN)


_PACKAGE = Path(onnx.__file__).parent / "backend/test/data"
_SMALL = [  # not the real networks, whose weights ConstantOfShape makes
    path for path in sorted(_PACKAGE.glob("*/*/*.onnx")) if path.stat().st_size < LARGEST // 8
]
_MODELS = tuple(sorted(ONNX.glob("*.onnx")))
_NETWORKS = tuple(sorted((HERE / "corpus/networks").glob("*.onnx")))
_CELL = next((HERE / "corpus/cells").glob("*.json"))
_YAML = ("&a ", "*a", "!!python/object:os.system ", "? ", "- ", "{", "[", "|", ">", "'", '"', "%YAML 9", "$OUT/..")
_LOG = ("(Sparsity) Found ", "(Sparsity) Chose ", " layer(s)", ": ", ", ", "(", ")", "Skipping tactic", "out of memory")

TARGETS = {
    "audit": Target(_MODELS, mutate_onnx, "input.onnx", _audit, ONNX),
    "predict": Target(_MODELS, mutate_onnx, "input.onnx", _predict, ONNX),
    "prune": Target((*_MODELS, *_NETWORKS, *_SMALL), mutate_onnx, "input.onnx", _prune_file, ONNX),
    "graph": Target(_MODELS, mutate_onnx, "input.onnx", _graph, ONNX),
    "triton": Target(_MODELS, mutate_onnx, "input.onnx", _triton, ONNX),
    "safetensors": Target((RUN / "sparse.safetensors",), mutate_safetensors, "input.safetensors", _checkpoint, RUN),
    "integers": Target(
        (RUN / "sparse.int8.safetensors",), mutate_safetensors, "input.int8.safetensors", _int8_weights, RUN
    ),
    "pt": Target((RUN / "weights.pt",), mutate_bytes, "input.pt", load_checkpoint),
    "manifest": _in_run("manifest.json", mutate_json, _manifest),
    "prune.json": _in_run("prune.json", mutate_json, _prune_json),
    "benchmark.json": _in_run("benchmark.json", mutate_json, lambda path: render_report(path.parent)),
    "run.json": _in_run("run.json", mutate_json, _run_record),
    "cell": Target((_CELL,), mutate_json, _CELL.name, _cell),
    "sidecar": _in_run("sparse.plan.json", mutate_json, _sidecar),
    "plan": _in_run("sparse.plan", mutate_bytes, load_plan),
    "timing cache": _in_run("tactics.cache", mutate_bytes, load_timing_cache),
    "cache sidecar": _in_run(
        "tactics.cache.json", mutate_json, lambda path: load_timing_cache(path.with_name("tactics.cache"))
    ),
    "yaml": Target(tuple(sorted((ROOT / "configs").glob("*.yaml"))), mutate_lines(_YAML), "input.yaml", _config),
    "build log": Target(
        tuple(sorted((ROOT / "tests/data/build_logs").glob("*.txt"))), mutate_lines(_LOG), "log.txt", _build_log
    ),
    "inspector": _in_run("inspector.json", mutate_json, _inspector),
}
