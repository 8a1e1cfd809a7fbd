"""A layer's statistics against the plain im2col product: ``python -m benchmarks.statistics``.

The reference is ``columns.T @ columns`` alone, with the columns in memory. Ours starts from the layer's input, in
chunks as the graph walk delivers them, and ends with H. The two are timed alternately, with PyTorch's threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparsegpt_core.execution import each
from sparsegpt_core.network import input_columns
from sparsegpt_core.statistics import LayerStatistics

SAMPLES, BATCH, CHUNK, ROUNDS, WARM_UP = 128, 32, 8, 7, 1
CPU = torch.device("cpu")
LAYERS = (
    ("3×3, 256 channels, 14²", nn.Conv2d(256, 256, 3, padding=1), 14),
    ("3×3, 64 channels, 56²", nn.Conv2d(64, 64, 3, padding=1), 56),
    ("3×3, 128 channels, 28²", nn.Conv2d(128, 128, 3, padding=1), 28),
    ("3×3, 512 channels, 7²", nn.Conv2d(512, 512, 3, padding=1), 7),
    ("3×3, stride 2, 128 channels, 56²", nn.Conv2d(128, 128, 3, stride=2, padding=1), 56),
    ("1×1, 1024 channels, 14²", nn.Conv2d(1024, 256, 1), 14),
)


def main() -> None:
    """Print the ratio of times for each layer: median, minimum and maximum over the rounds."""
    for name, layer, side in LAYERS:
        images = torch.randn(SAMPLES, layer.in_channels, side, side).contiguous(memory_format=torch.channels_last)
        # The samples whose columns fit in a gigabyte; the time of the product is proportional to their number.
        part = max(1, min(SAMPLES, (1 << 30) // (4 * layer.weight[0].numel() * side**2)))
        columns = input_columns(layer, images[:part])
        ratios = []
        for number in range(WARM_UP + ROUNDS):
            reference = _seconds(lambda columns=columns: columns.T @ columns) * SAMPLES / part
            ours = _seconds(lambda layer=layer, images=images: _ours(layer, images))
            if number >= WARM_UP:
                ratios.append(ours / reference)
        print(f"{name}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


@torch.no_grad()
def _ours(layer: nn.Conv2d, images: Tensor) -> Tensor:
    gathered = LayerStatistics(layer)
    batches = list(enumerate(images.split(BATCH)))

    def add(batch: tuple[int, Tensor]) -> None:
        number, samples = batch
        gathered.add_all((chunk, None, BATCH * number) for chunk in samples.split(CHUNK))

    each(add, batches, CPU)
    return gathered.moments().hessian.to_dense()


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
