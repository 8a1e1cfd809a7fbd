"""Win back what pruning lost, with every zero held, and write the checkpoint."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from calibration.data import Data
from calibration.recovery import ReconstructSettings, finetune, reconstruct
from calibration.sampling import calibration_batches, held_out_batches
from calibration.training import Distillation, FrozenZeros, TrainSettings, Unfinished, parse_pruning_metadata
from sparsegpt_cli.figures import curve_path, draw_blocks, draw_epochs
from sparsegpt_cli.jobs.datasets import DataSource
from sparsegpt_cli.jobs.models import LoadedModel, ModelSource, load, load_model
from sparsegpt_cli.jobs.training import data_key, evaluate_where_possible, require_labels, resume
from sparsegpt_cli.messages import Messages
from sparsegpt_core import __version__
from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import find_device
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.progress import Progress

__all__ = ["Blocks", "Networks", "Training", "finetune_model"]

_SAMPLES = 256
_HELD_OUT = 128  # images that blocks are judged by
_BATCH = 32


@dataclass(frozen=True)
class Networks:
    """A pruned network, what its checkpoint notes of it, the dense one where it is given, and the data."""

    sparse: LoadedModel
    dense: LoadedModel | None
    data: Data
    pruned: tuple[str, ...]
    pattern: Pattern

    def audit(self) -> None:
        """Raise ModelError where a pruned weight does not obey the pattern."""
        FrozenZeros(self.sparse.module, self.pruned, self.pattern)


@dataclass(frozen=True)
class Training:
    """Fine-tuning by labels, and by the dense network where there is one; None leaves a value to Distillation."""

    settings: TrainSettings
    distill: float | None = None
    temperature: float | None = None

    method: ClassVar[str] = "training"

    @property
    def device(self) -> str:
        """Where to compute."""
        return self.settings.device

    def key(self) -> dict[str, Any]:
        """Everything that makes a difference."""
        return {**asdict(self.settings), "distill": self.distill, "temperature": self.temperature}

    def check(self, networks: Networks) -> None:
        """Raise SparseGPTError where what is needed is not there, before any work is done."""
        require_labels(networks.data)
        if networks.dense is None and self._given():
            raise InputError("there is no dense network to learn from", "Give --dense its checkpoint.")

    def run(self, networks: Networks, unfinished: Unfinished, curve: Path, progress: Progress) -> dict[str, Any]:
        """Fine-tune in place, draw the learning curve and return the results."""
        teacher = Distillation(networks.dense.module, **self._given()) if networks.dense else None
        result = finetune(
            networks.sparse.module,
            networks.data,
            self.settings,
            networks.pruned,
            networks.pattern,
            teacher,
            progress,
            unfinished,
            lambda history: draw_epochs(curve, history),
        )
        dense_top1 = result.teacher.top1 if result.teacher else None
        draw_epochs(curve, result.history, dense_top1)
        return {
            "best_epoch": result.best_epoch,
            "validation_top1": result.best.validation_top1,
            "dense_validation_top1": dense_top1,
            "history": [asdict(epoch) for epoch in result.history],
        }

    def _given(self) -> dict[str, float]:
        given = {"weight": self.distill, "temperature": self.temperature}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Blocks:
    """Reconstruction block by block; ``samples`` None means 256 images, or four fifths of fewer."""

    settings: ReconstructSettings
    samples: int | None = None
    device: str = "cpu"

    method: ClassVar[str] = "blocks"

    def key(self) -> dict[str, Any]:
        """Everything that makes a difference."""
        return {**asdict(self.settings), "samples": self.samples}

    def check(self, networks: Networks) -> None:
        """Raise SparseGPTError where what is needed is not there, before any work is done."""
        self._teacher(networks)

    def run(self, networks: Networks, unfinished: Unfinished, curve: Path, progress: Progress) -> dict[str, Any]:
        """Reconstruct in place, draw the errors and return the results."""
        images, seed = networks.data.training, self.settings.seed
        samples = self.samples or max(1, min(_SAMPLES, len(images) * 4 // 5))
        result = reconstruct(
            networks.sparse.module.to(find_device(self.device)),
            self._teacher(networks),
            calibration_batches(images, samples, _BATCH, seed),
            held_out_batches(images, samples, _HELD_OUT, _BATCH, seed),
            networks.pruned,
            networks.pattern,
            self.settings,
            progress,
            unfinished,
        )
        draw_blocks(curve, result)
        return {
            "samples": samples,
            "held_out": {"before": result.start.to_json(), "after": result.end.to_json()},
            "blocks": [asdict(block) for block in result.blocks],
            "kept_blocks": result.kept,
            "untouched": list(result.untouched),
        }

    def _teacher(self, networks: Networks) -> nn.Module:
        if networks.dense is None:
            raise InputError("blocks learn from the dense network, which is not given", "Give --dense its checkpoint.")
        return networks.dense.module


def finetune_model(
    model: ModelSource,
    dense: Path | None,
    data: DataSource,
    how: Training | Blocks,
    out: Path,
    messages: Messages,
) -> dict[str, Any]:
    """Fine-tune a pruned checkpoint, evaluate it before and after, and write it, with a picture beside it.

    Until it is done the work is kept beside ``out``, from where it goes on after a kill.

    Args:
        model: The pruned checkpoint.
        dense: The checkpoint of the network that was pruned; fine-tuning by labels may do without.
        data: What to learn from, and to evaluate on.
        how: The method.
        out: The .safetensors file to write.
        messages: Takes messages and progress.

    Returns:
        What ``finetune --json`` prints.

    Raises:
        InputError: The method needs the dense network.
        DataError: The method needs labels, or more images.
        ModelError: The checkpoint is not of a pruned network or breaks its pattern, or something does not fit it.
        NumericsError: The loss diverged.
    """
    started = time.perf_counter()
    networks = _load(model, dense, data, messages)
    how.check(networks)
    sparse, opened = networks.sparse, networks.data
    key = {"model": sparse.spec, "weights": sparse.weights_sha256, **data_key(opened), "method": how.method}
    key |= {"dense": networks.dense.weights_sha256 if networks.dense else None, **how.key()}
    curve = curve_path(out)
    with resume(out, key, messages) as unfinished, messages.progress() as progress:
        before = {name: network for name, network in (("dense", networks.dense), ("before", sparse)) if network}
        evaluation = {
            name: evaluate_where_possible(each.module, opened, how.device, progress) for name, each in before.items()
        }
        content = how.run(networks, unfinished, curve, progress)
        evaluation["after"] = evaluate_where_possible(sparse.module, opened, how.device, progress)
    networks.audit()
    noted = {
        "tool_version": __version__,
        "model": sparse.spec,
        "image": list(sparse.image),
        "mean": list(opened.mean),
        "std": list(opened.std),
        "finetuned_from": sparse.weights_sha256,
        "finetuning": {"method": how.method, "data": opened.spec, **how.key()},
        "evaluation": evaluation["after"],
    }
    save_checkpoint(out, sparse.module.state_dict(), {**sparse.metadata, **noted})
    return {
        "out": str(out),
        "curve": str(curve),
        "method": how.method,
        "pattern": str(networks.pattern),
        "evaluation": evaluation,
        **content,
        "seconds": time.perf_counter() - started,
    }


def _load(model: ModelSource, dense: Path | None, data: DataSource, messages: Messages) -> Networks:
    sparse, opened = load(model, data, messages)
    networks = Networks(sparse, None, opened, *parse_pruning_metadata(sparse.metadata))
    networks.audit()
    if dense is None:
        return networks
    checkpoint = load_checkpoint(dense)
    if sparse.metadata.get("source_sha256") not in (None, checkpoint.sha256):
        messages.warn(f"{dense} is not what was pruned; {model.weights} notes another")
    options = ModelSource(sparse.spec, dense, model.num_classes or sparse.metadata.get("num_classes"))
    return replace(networks, dense=load_model(options, checkpoint, sparse.image, messages, opened.num_classes))
