"""The pruning methods that are compared. Each adds one part to the one before it."""

from __future__ import annotations

import copy
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.onnx.others import prune_in_its_environment
from calibration.recovery import ReconstructSettings, reconstruct, reestimate_batchnorm
from calibration.sampling import with_views
from export.importing import OnnxNetwork
from export.writing import export_model
from sparsegpt_core.activations import LayerDemand, open_source
from sparsegpt_core.execution import DEFAULT
from sparsegpt_core.network import eval_mode, matrix_to_weight, plan_layers, weight_to_matrix
from sparsegpt_core.patterns import NM, Pattern
from sparsegpt_core.pruning import cnn_sparsegpt, permute_model, prune_model
from sparsegpt_core.quality import QUALITIES
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solvers import solve
from sparsegpt_core.statistics import LayerStatistics

__all__ = ["ARMS", "PATTERNS", "Arm"]

PATTERNS = ("2:4", "1:4")
ROOT = Path(__file__).resolve().parents[2]

Prune = Callable[[nn.Module, list[Tensor], Pattern, list[Tensor]], object]
"""Takes a network, calibration images, a pattern, and other images that may judge but not calibrate.

It prunes the network in place, or returns another one.
"""

# SparseGPT as published. The other arms add parts by name.
_PLAIN: dict[str, Any] = {"alpha": 0.0, "refit": False, "bias": False, "damping": 0.01, "mask": "adaptive"}
_TARGET = _PLAIN | {"refit": True, "alpha": 1.0}
_DAMPED = _TARGET | {"damping": None}
_ADMM = _DAMPED | {"bias": True, "mask": "admm", "admm_columns": 8192}
_FAST, _BALANCED, _BEST = (vars(QUALITIES[name].settings) for name in ("fast", "balanced", "best"))


@dataclass(frozen=True)
class Arm:
    """A pruning method: its name in the table, the function that prunes in place, and its patterns."""

    title: str
    prune: Prune
    patterns: tuple[str, ...] = PATTERNS


def _library(
    title: str,
    settings: dict[str, Any],
    *,
    views: int = 0,
    permute: bool = False,
    batch_norm: bool = False,
    look_ahead: bool = False,
) -> Arm:
    def prune(model: nn.Module, batches: list[Tensor], pattern: Pattern, held_out: list[Tensor]) -> None:
        chosen, images = PruneSettings(**settings | {"pattern": pattern}), batches
        if views:
            batches = with_views(batches, views, [min(float(batch.min()) for batch in batches)], flip=True, seed=0)
        if permute:
            permute_model(model, batches, chosen)
        dense = copy.deepcopy(model) if look_ahead else None
        result = prune_model(model, batches, chosen)
        if dense is not None:
            pruned = [layer.name for layer in result.layers if layer.status == "pruned"]
            reconstruct(model, dense, images, held_out, pruned, pattern, ReconstructSettings())
        if batch_norm:
            reestimate_batchnorm(model, batches)

    return Arm(title, prune)


def _research_project(title: str, **right: bool) -> Arm:
    def prune(model: nn.Module, batches: list[Tensor], pattern: Pattern, _: list[Tensor]) -> None:
        cnn_sparsegpt(model, batches, pattern, **right)

    return Arm(title, prune)


def _dense_inputs(model: nn.Module, batches: list[Tensor], pattern: Pattern, _: list[Tensor]) -> None:
    """Prune every layer with its inputs in the dense network."""
    settings = PruneSettings(pattern=pattern, **_PLAIN)
    with eval_mode(model), torch.no_grad():
        layers = [layer for layer in plan_layers(model, batches[0][:2], settings) if layer.reason is None]
        demand = LayerDemand(layers, sum(map(len, batches)))
        with open_source(model, batches, demand, DEFAULT, {}) as source:
            pruned = []
            for layer in layers:
                statistics = LayerStatistics(
                    layer.prunable,
                    samples=demand.samples,
                    positions_per_column=settings.positions_per_column,
                )
                source.gather(layer, statistics)
                matrix = solve(weight_to_matrix(layer.prunable.weight), statistics.moments(), settings).matrix
                pruned.append((layer.prunable.weight, matrix_to_weight(matrix, layer.shape)))
        for weight, value in pruned:
            weight.copy_(value)


def _model_optimizer(model: nn.Module, batches: list[Tensor], *_: object) -> None:
    """Prune with NVIDIA's SparseGPT, in the environment that ``make bench-accuracy`` creates."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("model.pt", "batches.pt", "pruned.pt")]
        torch.save(model, files[0])
        torch.save(batches, files[1])
        command = [".venv-modelopt/bin/python", "-W", "ignore", "-m", "benchmarks.accuracy.model_optimizer", *files]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        model.load_state_dict(torch.load(files[2], weights_only=True))


def _snows(model: nn.Module, batches: list[Tensor], pattern: Pattern, _: object, *, iterations: int) -> None:
    """Prune with SNOWS, whose clone the variable SNOWS names, in the environment ``.venv-snows``."""
    assert isinstance(pattern, NM)
    with tempfile.TemporaryDirectory() as folder:
        state, images, out = (Path(folder) / name for name in ("state.pt", "images.pt", "pruned.pt"))
        torch.save(model.state_dict(), state)
        torch.save(torch.cat(batches), images)
        files = [state, images, str(pattern.n), str(pattern.m), str(iterations), out]
        command = [".venv-snows/bin/python", "-W", "ignore", "-m", "benchmarks.accuracy.snows", os.environ["SNOWS"]]
        subprocess.run([*command, *files], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        model.load_state_dict(torch.load(out, weights_only=True))


def _onnxsim(model: nn.Module, batches: list[Tensor], *_: object) -> nn.Module:
    """Prune the network's ONNX file with onnxsim, in the environment ``.venv-onnx``, and read it as a network."""
    dense, images = export_model(model, (batches[0][:2],)), torch.cat(batches).numpy()
    python = ROOT / ".venv-onnx/bin/python"
    return OnnxNetwork(prune_in_its_environment(python, "onnxsim", dense, images, len(batches[0])))


ARMS = {
    "seed": _research_project("the research project's way: wrong axis, wrong update"),
    "seed_axis": _research_project("… with the right axis", right_axis=True),
    "seed_update": _research_project("… with the right update", right_update=True),
    "seed_both": _research_project("… with both", right_axis=True, right_update=True),
    "model_optimizer": Arm("Model Optimizer's SparseGPT: masks, no update", _model_optimizer, ("2:4",)),
    "onnxsim": Arm("onnxsim's SparseGPT", _onnxsim, ("2:4",)),
    "snows": Arm("SNOWS", partial(_snows, iterations=1000)),
    "snows_short": Arm("SNOWS, 5 iterations of conjugate gradients in place of 1000", partial(_snows, iterations=5)),
    "magnitude": _library("magnitude", {"method": "magnitude"}),
    "magnitude_bn": _library("magnitude + batch norm re-estimated", {"method": "magnitude"}, batch_norm=True),
    "dense_inputs": Arm("SparseGPT, inputs of the dense network", _dense_inputs),
    "plain": _library("SparseGPT, inputs of the pruned network", _PLAIN),
    "plain_bn": _library("… + batch norm re-estimated", _PLAIN, batch_norm=True),
    "refit": _library("SparseGPT + exact refit on the mask", _PLAIN | {"refit": True}),
    "target": _library("… + dense target (α = 1)", _TARGET),
    "target_bn": _library("… + batch norm re-estimated", _TARGET, batch_norm=True),
    "damped": _library("dense target, damping by the data", _DAMPED),
    "bias": _library("… + biases shifted", _DAMPED | {"bias": True}),
    "exact": _library("… with exact groups", _DAMPED | {"bias": True, "mask": "exact"}),
    "admm": _library("… with ADMM's masks", _ADMM),
    "auto": _library("… with the best mask by held-out error", _ADMM | {"mask": "auto"}),
    "alpha": _library("ADMM, α by held-out error", _ADMM | {"alpha": None}),
    "fast": _library("preset fast", _FAST),
    "balanced": _library("preset balanced", _BALANCED),
    "views": _library("balanced + three views of each image", _BALANCED, views=3),
    "ordered": _library("balanced + channels ordered, ADMM everywhere", _BEST, permute=True),
    "ordered_views": _library("balanced + both", _BEST, permute=True, views=3),
    "look_ahead": _library("balanced + look-ahead", _BALANCED, look_ahead=True),
    "ordered_look_ahead": _library(
        "balanced + channels ordered, ADMM everywhere, look-ahead", _BEST, permute=True, look_ahead=True
    ),
    "best": _library("preset best: both, with seven views", _BEST, permute=True, views=7),
}
