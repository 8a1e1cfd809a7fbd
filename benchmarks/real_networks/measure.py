"""One measurement in its own process: ``python -m benchmarks.real_networks.measure PART JOB FOLDER PYTHON``.

It prints one JSON line. ``PYTHON`` is that of onnxsim's environment.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from benchmarks.measurements import Record
from benchmarks.onnx.inputs import read_photos
from benchmarks.onnx.others import prune_in_its_environment
from benchmarks.real_networks.jobs import GPUS, ONNXSIM, PRECISIONS, TARGET, MethodJob
from benchmarks.real_networks.metrics import compare, top1
from benchmarks.real_networks.networks import NETWORKS, RealNetwork
from calibration.data import Data, TrainingSplit
from calibration.data.image_sources import ArrayImages, Samples
from calibration.evaluation import outputs_of
from calibration.sampling import calibration_batches
from deploy.predict import find_gains
from export.audit import audit_model
from export.execution import CpuSession
from export.exporter import Exporter
from export.importing import OnnxNetwork
from export.writing import export_model
from sparsegpt_cli.jobs.gains import Target, predict_for
from sparsegpt_cli.jobs.int8_graphs import Int8Quantiser
from sparsegpt_cli.jobs.job import Job
from sparsegpt_cli.jobs.models import LoadedModel
from sparsegpt_cli.jobs.pruning import prune
from sparsegpt_cli.sweep.methods import settings_for, workflow_for
from sparsegpt_core.errors import SparseGPTError, first_line
from sparsegpt_core.network import plan_layers
from sparsegpt_core.patterns import NM
from sparsegpt_core.pruning import PruneResult
from sparsegpt_core.quality import QUALITIES, Quality
from sparsegpt_core.settings import PruneSettings

__all__ = ["estimate_gains", "measure_method", "measure_precisions"]

PATTERN = NM(2, 4)


@dataclass(frozen=True)
class _Bench:
    """A dense network, its photos and its outputs."""

    network: RealNetwork
    module: nn.Module
    data: Data
    tested: list[Tensor]
    labels: npt.NDArray[np.int64] | None
    outputs: Tensor

    def judge(self, outputs: Tensor) -> dict[str, float]:
        return compare(self.network, self.outputs, outputs, self.labels)

    def draw(self, seed: int) -> list[Tensor]:
        return calibration_batches(self.data.training, self.network.samples, self.network.inputs.batch, seed)


def measure_method(job: MethodJob, folder: Path, python: str) -> Record:
    """Prune with one method, and compare the outputs on the test photos with the dense network's."""
    bench = _open(job.network, folder)
    about = {**asdict(job), "samples": bench.network.samples, "tested": bench.network.tested}
    if bench.labels is not None:
        about["dense_top1"] = top1(bench.outputs, bench.labels)
    start = _cpu_seconds()
    try:
        if job.method == ONNXSIM:
            module, pruned = _onnxsim(bench, job.draw, python)
        else:
            module, pruned = bench.module, _names(_prune(bench, job))
    except SparseGPTError as error:
        return {**about, "failure": first_line(error)}
    seconds = _cpu_seconds() - start
    return {**about, "seconds": seconds, "pruned": pruned, **bench.judge(outputs_of(module, bench.tested))}


def measure_precisions(job: MethodJob, folder: Path) -> Record:
    """Prune with one method, and compare the FP16 and the INT8 file's outputs with the dense network's."""
    bench = _open(job.network, folder)
    batches, found = bench.draw(job.draw), {"dense": bench.judge(bench.outputs)}
    found["dense int8"] = _files(bench, batches, ("int8",))["int8"]
    result = _prune(bench, job, int8=True)
    found["fp32"] = bench.judge(outputs_of(bench.module, bench.tested))
    found |= _files(bench, batches, PRECISIONS, result)
    return {**asdict(job), "samples": bench.network.samples, "tested": bench.network.tested, "files": found}


def estimate_gains(name: str, folder: Path) -> Record:
    """Estimate the share of the time that sparse kernels save in each layer; None where no shape can be inferred."""
    bench = _open(name, folder, tested=1)
    image = bench.tested[0]
    plan = plan_layers(bench.module, image, PruneSettings(PATTERN))
    names, saved = [layer.name for layer in plan if layer.reason is None], {}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "dense.onnx")
        onnx.save(_graph(bench.module, image), path)
        for gpu in GPUS:
            for precision in PRECISIONS:
                gains = find_gains(predict_for(Target(gpu, precision), path, image), names)
                known = {name: share for name, share in gains.saved.items() if share} if gains.saved else None
                saved[f"{gpu} {precision}"] = known
    return {"network": name, "layers": len(plan), "prunable": len(names), "saved": saved}


def _open(name: str, folder: Path, tested: int | None = None) -> _Bench:
    network = NETWORKS[name]
    module, inputs = network.load(folder / network.file), network.inputs
    test = torch.from_numpy(read_photos(folder, inputs, "test", tested or network.tested))
    labels = {split: _labels(folder, split) if inputs.logits else None for split in ("calib", "test")}
    batches = list(torch.split(test, inputs.batch))
    calib = read_photos(folder, inputs, "calib")
    samples = Samples(ArrayImages(calib), labels["calib"])
    data = Data("photos", TrainingSplit(samples), None, None, None, calib.shape[1:], (0.0,), (1.0,))
    judged = labels["test"]
    judged = None if judged is None else judged[: len(test)]
    return _Bench(network, module, data, batches, judged, outputs_of(module, batches))


def _labels(folder: Path, split: str) -> npt.NDArray[np.int64]:
    with np.load(folder / f"{split}.npz") as archive:
        labels: npt.NDArray[np.int64] = archive["labels"].astype(np.int64)
    return labels


def _prune(bench: _Bench, job: MethodJob, *, int8: bool = False) -> PruneResult:
    """Prune the network as the command does."""
    if job.method in QUALITIES:
        quality = QUALITIES[job.method]
    else:
        quality = Quality(settings_for(job.method, PATTERN), workflow_for(job.method))
    return prune(
        Job(
            LoadedModel(bench.module, job.network, bench.data.image_shape, None, None),
            bench.data,
            quality.settings,
            torch.device("cpu"),
            quality.workflow,
            Target(TARGET) if job.layers == "pays" else None,
            samples=bench.network.samples,
            batch_size=bench.network.inputs.batch,
            seed=job.draw,
            int8=int8,
        )
    ).result


def _names(result: PruneResult) -> list[str]:
    return [layer.name for layer in result.layers if layer.status == "pruned"]


def _onnxsim(bench: _Bench, seed: int, python: str) -> tuple[nn.Module, list[str]]:
    """Prune the network's file with onnxsim; return the file as a network, and its sparse layers."""
    images = torch.cat(bench.draw(seed))
    dense, batch = _graph(bench.module, images), bench.network.inputs.batch
    model = prune_in_its_environment(python, ONNXSIM, dense, images.numpy(), batch)
    sparse = [layer.name for layer in audit_model(model, PATTERN).layers if layer.is_sparse]
    return OnnxNetwork(model), sparse


def _cpu_seconds() -> float:
    """Return the CPU time of this process and its finished children. Other work on the machine hardly changes it."""
    return sum(os.times()[:4])


def _graph(module: nn.Module, images: Tensor) -> onnx.ModelProto:
    return module.to_onnx() if isinstance(module, OnnxNetwork) else export_model(module, (images[:2],))


def _files(
    bench: _Bench, batches: list[Tensor], precisions: Sequence[str], result: PruneResult | None = None
) -> dict[str, dict[str, float]]:
    quantiser = Int8Quantiser(batches, result.int8_weights if result else {})
    exporter = Exporter(bench.module, batches[0], {}, PATTERN, _names(result) if result else [], quantise=quantiser)
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for precision in precisions:
            path = exporter.write(Path(temporary, f"{precision}.onnx"), precision).path
            session = CpuSession(path, path.name)
            outputs = [session.run([batch.numpy()])[0] for batch in bench.tested]
            found[precision] = bench.judge(torch.from_numpy(np.concatenate(outputs)).double())
    return found


def _main() -> Record:
    part, job, folder, python = sys.argv[1:]
    options: Any = json.loads(job)
    if part == "gains":
        return estimate_gains(options["network"], Path(folder))
    if part == "precisions":
        return measure_precisions(MethodJob(**options), Path(folder))
    return measure_method(MethodJob(**options), Path(folder), python)


if __name__ == "__main__":
    print(json.dumps(_main()))
