"""The audit of a ResNet-50 beside Polygraphy's: ``python -m benchmarks.audit [MODEL.onnx]``.

Both read the same file inside this process; ours several times, theirs, which takes a minute, fewer. Processor time
stands beside the clock's: on a busy machine only the former can be compared with another run's.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import torchvision
from polygraphy.logger import G_LOGGER
from polygraphy.tools.sparse import SparsityPruner

from export.audit import audit_model
from export.onnx_writer import export_model, save_model

ROUNDS, THEIR_ROUNDS, WARM_UP = 9, 2, 1


def main() -> None:
    """Print median, least and most seconds of both."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else _resnet50(Path(folder))
        print(f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, onnx {onnx.__version__}")
        _report("ours", lambda: audit_model(path), ROUNDS)
        G_LOGGER.severity = G_LOGGER.CRITICAL
        _report("polygraphy inspect sparsity", lambda: SparsityPruner(onnx.load(str(path))).check(), THEIR_ROUNDS)


def _resnet50(folder: Path) -> Path:
    path = folder / "resnet50.onnx"
    save_model(export_model(torchvision.models.resnet50(weights=None).eval(), (3, 224, 224)), path)
    return path


def _report(name: str, work: Callable[[], object], rounds: int) -> None:
    clock, processor = [], []
    for _ in range(WARM_UP * (rounds > THEIR_ROUNDS) + rounds):
        start, used = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    for unit, seconds in (("seconds", clock[-rounds:]), ("processor seconds", processor[-rounds:])):
        spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
        print(f"{name}: {statistics.median(seconds):.3f} {unit} ({spread}, {rounds} rounds)", flush=True)


if __name__ == "__main__":
    main()
