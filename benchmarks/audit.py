"""The audit of a ResNet-50 compared with Polygraphy's, for docs/audit.md: ``python -m benchmarks.audit [MODEL.onnx]``.

Both read the same 2:4 file inside this process. With a dense file Polygraphy could stop at the first group of each
layer. Polygraphy takes minutes, so it runs fewer times. CPU time is reported as well as wall time: on a busy machine
only CPU times can be compared between runs.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import polygraphy
import torch
import torchvision
from polygraphy.logger import G_LOGGER
from polygraphy.tools.sparse import SparsityPruner

from export.audit import audit_model
from export.writing import export_model, save_model
from sparsegpt_core.files import write_text

ROUNDS, THEIR_ROUNDS = 9, 3
PAGE = Path("docs/audit.md")


def main() -> None:
    """Write the median, minimum and maximum seconds of both."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else _resnet50(Path(folder))
        rows = [
            *_rows("ours", lambda: audit_model(path), ROUNDS),
            *_rows(f"`polygraphy inspect sparsity`, {polygraphy.__version__}", lambda: _theirs(path), THEIR_ROUNDS),
        ]
        about = (
            f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, 2:4 throughout, onnx {onnx.__version__}, Python "
            f"{platform.python_version()} on {os.cpu_count()} cores"
        )
    lines = [
        "# The audit's speed",
        f"Made by `python -m benchmarks.audit`: {about}. Times include loading the file. Processor seconds do not "
        "depend on other work on the machine.",
        "",
        "| audit | unit | median | smallest … largest | rounds |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]
    write_text(PAGE, "\n".join(lines) + "\n")


def _theirs(path: Path) -> None:
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Polygraphy computes with infinity
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


def _rows(name: str, work: Callable[[], object], rounds: int) -> list[str]:
    clock, processor = [], []
    for _ in range(rounds):
        start, used = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    rows = [
        f"| {name} | {unit} | {statistics.median(taken):.3f} | {min(taken):.3f} … {max(taken):.3f} | {rounds} |"
        for unit, taken in (("seconds", clock), ("processor seconds", processor))
    ]
    print(*rows, sep="\n", flush=True)
    return rows


if __name__ == "__main__":
    main()
