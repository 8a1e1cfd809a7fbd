"""Fine-tunes a pruned checkpoint, whose zeros stay zero."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy.typing as npt
from torch import nn

from calibration.data import Data
from calibration.evaluation import named_outputs
from calibration.recovery import ReconstructSettings, finetune, reconstruct
from calibration.sampling import calibration_batches, held_out_batches
from calibration.training import Distillation, FrozenZeros, TrainSettings, Unfinished, parse_pruning_metadata
from deploy.measure import Metric, compare_versions
from export.importing import is_onnx_file
from sparsegpt_cli.figures import curve_path, draw_blocks, draw_epochs
from sparsegpt_cli.jobs.datasets import DataSource, EvaluationBatches
from sparsegpt_cli.jobs.job import check_network
from sparsegpt_cli.jobs.models import LoadedModel, ModelSource, load, load_model, read_weights
from sparsegpt_cli.jobs.training import data_key, evaluate_where_possible, require_labels, resume
from sparsegpt_cli.messages import Messages, with_flags
from sparsegpt_core import __version__
from sparsegpt_core.checkpoints import save_checkpoint
from sparsegpt_core.errors import DataError, InputError
from sparsegpt_core.execution import find_device
from sparsegpt_core.files import sha256
from sparsegpt_core.named_inputs import Arrays
from sparsegpt_core.network import from_arrays
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.progress import Progress

__all__ = ["Blocks", "Networks", "Training", "finetune_model"]

_DEFAULT_SAMPLES = 256
_HELD_OUT_IMAGES = 128  # on which reconstructed blocks are compared
_BATCH_IMAGES = 32


@dataclass(frozen=True)
class Networks:
    """A pruned network, its dense original, and the data."""

    sparse: LoadedModel
    """The pruned network."""
    dense: LoadedModel | None
    """The dense network; None if it is not given."""
    data: Data
    """The images."""
    pruned: tuple[str, ...]
    """Names of the pruned layers."""
    pattern: Pattern
    """The pattern of the pruned layers."""

    def audit(self) -> None:
        """Raise ModelError if a pruned weight does not have the pattern."""
        FrozenZeros(self.sparse.module, self.pruned, self.pattern)


@dataclass(frozen=True)
class Training:
    """Fine-tuning by labels, and by the dense network's outputs if it is given."""

    settings: TrainSettings
    """How to train."""
    distill: float | None = None
    """The weight of the dense network's outputs in the loss; None: the default of ``Distillation``."""
    temperature: float | None = None
    """The temperature of both networks' outputs; None: the default of ``Distillation``."""

    method: ClassVar[str] = "training"

    @property
    def device(self) -> str:
        """The device."""
        return self.settings.device

    def key(self) -> dict[str, Any]:
        """Return everything that changes the result."""
        return {**asdict(self.settings), "distill": self.distill, "temperature": self.temperature}

    def check(self, networks: Networks) -> None:
        """Raise SparseGPTError if something that the method needs is missing."""
        require_labels(networks.data)
        if networks.dense is None and self._given():
            raise InputError("distillation needs the dense network", "Give --dense its checkpoint.")

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
    """Reconstruction block by block."""

    settings: ReconstructSettings
    """How to reconstruct."""
    samples: int | None = None
    """Calibration images; None: 256, or four fifths of the images if there are fewer."""
    device: str = "cpu"
    """The device."""

    method: ClassVar[str] = "blocks"

    def key(self) -> dict[str, Any]:
        """Return everything that changes the result."""
        return {**asdict(self.settings), "samples": self.samples}

    def check(self, networks: Networks) -> None:
        """Raise SparseGPTError if something that the method needs is missing."""
        self._teacher(networks)

    def run(self, networks: Networks, unfinished: Unfinished, curve: Path, progress: Progress) -> dict[str, Any]:
        """Reconstruct in place, draw the errors and return the results."""
        images, seed = networks.data.training, self.settings.seed
        samples = self.samples or max(1, min(_DEFAULT_SAMPLES, len(images) * 4 // 5))
        result = reconstruct(
            networks.sparse.module.to(find_device(self.device)),
            self._teacher(networks),
            calibration_batches(images, samples, _BATCH_IMAGES, seed),
            held_out_batches(images, samples, _HELD_OUT_IMAGES, _BATCH_IMAGES, seed),
            networks.pruned,
            networks.pattern,
            self.settings,
            progress,
            unfinished,
        )
        draw_blocks(curve, result)
        return {"samples": samples, **result.to_json()}

    def _teacher(self, networks: Networks) -> nn.Module:
        if networks.dense is None:
            raise InputError("reconstruction needs the dense network", "Give --dense its checkpoint.")
        return networks.dense.module


def finetune_model(
    model: ModelSource,
    dense: Path | None,
    data: DataSource,
    how: Training | Blocks,
    out: Path,
    messages: Messages,
    metric: Metric | None = None,
) -> dict[str, Any]:
    """Fine-tune a pruned checkpoint, evaluate it before and after, and write it and its learning curve.

    Unfinished work is kept next to ``out``. After a kill, the same call resumes it.

    Args:
        model: The pruned checkpoint.
        dense: The checkpoint of the dense network. Training by labels does not need it.
        data: The images to train and evaluate on.
        how: The method.
        out: The .safetensors file to write.
        messages: Takes messages and progress.
        metric: Compared on the evaluation images: before and after with the dense network, or after with before.

    Returns:
        What ``finetune --json`` prints.

    Raises:
        InputError: The method needs the dense network.
        DataError: The method needs labels, or more images; the metric needs evaluation images; or labels do not fit.
        ModelError: The checkpoint is not a pruned network or breaks its pattern, or the dense network does not fit it.
        NumericsError: The loss diverged.
    """
    started = time.perf_counter()
    networks = _load(model, dense, data, messages)
    how.check(networks)
    sparse, opened = networks.sparse, networks.data
    warnings = _check_fit(networks, how.device, messages)
    versions = {"before": copy.deepcopy(sparse.module)} if metric else {}
    key = {"model": sparse.spec, "weights": sparse.weights_sha256, **data_key(opened), "method": how.method}
    key |= {"dense": networks.dense.weights_sha256 if networks.dense else None, **how.key()}
    curve = curve_path(out)
    with resume(out, key, messages) as unfinished, messages.progress() as progress:

        def evaluate_before() -> dict[str, Any]:
            if metric:
                _measure(metric, versions, opened, how, progress)  # a metric that fails does so before the training
            before = {name: network for name, network in (("dense", networks.dense), ("before", sparse)) if network}
            return {
                name: evaluate_where_possible(each.module, opened, how.device, progress)
                for name, each in before.items()
            }

        evaluation = unfinished.once("evaluation", evaluate_before)
        content = how.run(networks, unfinished, curve, progress)
        evaluation["after"] = evaluate_where_possible(sparse.module, opened, how.device, progress)
    networks.audit()
    metadata = {
        "tool_version": __version__,
        "model": sparse.spec,
        **opened.metadata(),
        "finetuned_from": sparse.weights_sha256,
        "finetuning": {"method": how.method, "data": opened.spec, **how.key()},
        "evaluation": evaluation["after"],
    }
    save_checkpoint(out, sparse.module.state_dict(), {**sparse.metadata, **metadata})
    metrics = None
    if metric:
        dense_version = {"dense": networks.dense.module} if networks.dense else {}
        with messages.progress() as progress:
            metrics = _measure(metric, {**dense_version, **versions, "after": sparse.module}, opened, how, progress)
    return {
        "out": str(out),
        "curve": str(curve),
        "method": how.method,
        "pattern": str(networks.pattern),
        "evaluation": evaluation,
        "metrics": metrics,
        **content,
        "warnings": [with_flags(warning) for warning in warnings],
        "seconds": time.perf_counter() - started,
    }


def _check_fit(networks: Networks, device: str, messages: Messages) -> list[str]:
    """Check the labels, and that the dense network is better than chance; the pruned one need not be."""
    network = networks.dense or networks.sparse
    return check_network(network, networks.data, find_device(device), messages, is_dense=networks.dense is not None)


def _measure(
    metric: Metric, versions: Mapping[str, nn.Module], data: Data, how: Training | Blocks, progress: Progress
) -> dict[str, Any]:
    """Return the figures of a metric, as JSON. Versions are compared with the first one.

    Raises:
        DataError: There is no evaluation split.
        InputError: The metric fails.
    """
    if data.evaluation is None:
        raise DataError(f"{data.spec} has no evaluation split, which `metric` needs", "Give `eval_data`.")
    batches = EvaluationBatches(data.evaluation, 0, _BATCH_IMAGES, how.settings.seed)
    sessions = {name: partial(_outputs, module.to(find_device(how.device))) for name, module in versions.items()}
    reference = next(iter(versions))
    compared = compare_versions(sessions, batches, metric, reference, how.settings.seed, progress, total=len(batches))
    found: dict[str, Any] = compared.to_json()["metrics"]
    return found


def _outputs(module: nn.Module, images: Arrays) -> dict[str, npt.NDArray[Any]]:
    return {name: value.numpy() for name, value in named_outputs(module, from_arrays(images)).items()}


def _load(model: ModelSource, dense: Path | None, data: DataSource, messages: Messages) -> Networks:
    if is_onnx_file(model.spec):
        raise InputError(f"{model.spec} can be pruned, not trained", "Give `model` the PyTorch network.")
    sparse, opened = load(model, data, messages)
    networks = Networks(sparse, None, opened, *parse_pruning_metadata(sparse.metadata))
    networks.audit()
    if dense is None:
        return networks
    is_source = dense.is_file() and sha256(dense) == sparse.metadata.get("source_sha256")
    checkpoint = read_weights(dense, messages, sparse.metadata.get("source_key") if is_source else None)
    if not is_source and "source_sha256" in sparse.metadata:
        messages.warn(f"{model.weights} was pruned from another network than {dense}")
    options = ModelSource(sparse.spec, dense, sparse.metadata.get("num_classes"), model.arguments)
    return replace(networks, dense=load_model(options, checkpoint, sparse.image, messages, opened.num_classes))
