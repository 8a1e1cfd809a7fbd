"""The audit of a ResNet-50 beside Polygraphy's: ``python -m benchmarks.audit [MODEL.onnx]``.

Both read the same 2:4 file inside this process (a dense one would let Polygraphy stop at each layer's first group);
ours several times, theirs, which takes minutes, fewer. Processor time stands beside the clock's: on a busy machine
only the former can be compared with another run's.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
import torchvision
from polygraphy.logger import G_LOGGER
from polygraphy.tools.sparse import SparsityPruner

from export.audit import audit_model
from export.onnx_writer import export_model, save_model

ROUNDS, THEIR_ROUNDS = 9, 3


def main() -> None:
    """Print median, least and most seconds of both."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else _resnet50(Path(folder))
        print(f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, onnx {onnx.__version__}")
        _report("ours", lambda: audit_model(path), ROUNDS)
        _report("polygraphy inspect sparsity", lambda: _theirs(path), THEIR_ROUNDS)


def _theirs(path: Path) -> None:
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of its bare infinity
        SparsityPruner(onnx.load(str(path))).check()


def _resnet50(folder: Path) -> Path:
    path = folder / "resnet50.onnx"
    model = torchvision.models.resnet50(weights=None).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            keep = torch.arange(module.weight.shape[1]) % 4 < 2
            module.weight.data *= keep.reshape([-1 if axis == 1 else 1 for axis in range(module.weight.ndim)])
    save_model(export_model(model, (3, 224, 224)), path)
    return path


def _report(name: str, work: Callable[[], object], rounds: int) -> None:
    clock, processor = [], []
    for _ in range(rounds):
        start, used = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    for unit, seconds in (("seconds", clock), ("processor seconds", processor)):
        spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
        print(f"{name}: {statistics.median(seconds):.3f} {unit} ({spread}, {rounds} rounds)", flush=True)


if __name__ == "__main__":
    main()
