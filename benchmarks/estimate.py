"""The estimate of ``predict`` next to published measurements: ``python -m benchmarks.estimate``.

Writes ``benchmarks/results/estimate.json`` and the tables of ``docs/estimate.md``. Networks have random weights, on
which no time depends.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torchvision import models

from benchmarks.pages import fill, table_line
from deploy.graph import OnnxFile, Product, Workload
from deploy.predict import predict
from deploy.roofline import GPUS, dense_time, sparse_time
from export.writing import export_model
from sparsegpt_core.files import read_json, write_json, write_text

ROOT = Path(__file__).parents[1]
RAW, PAGE = ROOT / "benchmarks" / "results" / "estimate.json", ROOT / "docs" / "estimate.md"
TOLERANCE = 0.15
"""How far a predicted gain may be from the measured one."""


class UNet(nn.Module):
    """The network of Ronneberger et al. (2015), with padding: 64 to 1,024 channels."""

    def __init__(self) -> None:
        super().__init__()
        widths = [64 << level for level in range(5)]
        self.down = nn.ModuleList(map(_double, [3, *widths[:-1]], widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[-2::-1])
        self.up = nn.ModuleList(_double(2 * width, width) for width in widths[-2::-1])
        self.head = nn.Conv2d(64, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        values = [self.down[0](images)]
        for down in self.down[1:]:
            values.append(down(nn.functional.max_pool2d(values[-1], 2)))
        found = values.pop()
        for grow, up in zip(self.grow, self.up, strict=True):
            found = up(torch.cat([values.pop(), grow(found)], 1))
        result: Tensor = self.head(found)
        return result


def _double(inputs: int, outputs: int) -> nn.Sequential:
    def conv(channels: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(*conv(inputs), *conv(outputs))


def _mlp() -> nn.Sequential:
    """Six blocks as in ViT-B: 768 → 3,072 → 768."""
    return nn.Sequential(
        *(layer for _ in range(6) for layer in (nn.Linear(768, 3072), nn.ReLU(), nn.Linear(3072, 768)))
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "UNet": (UNet, (3, 512, 512)),
    "ResNet-18": (models.resnet18, (3, 224, 224)),
    "ResNet-50": (models.resnet50, (3, 224, 224)),
    "InceptionV3": (lambda: models.inception_v3(aux_logits=False, init_weights=False), (3, 299, 299)),
    "ResNeXt-101": (models.resnext101_32x8d, (3, 224, 224)),
    "ViT-B's MLPs": (_mlp, (768,)),
}
"""How to make each network, and the shape of one input."""


@dataclass(frozen=True)
class Measurement:
    """What somebody published of one network on one GPU."""

    network: str
    gpu: str
    precision: str
    source: str
    gain: float | None = None
    """The speed-up of 2:4, sparse over dense engine."""
    batches: tuple[int, ...] = (1, 8, 32)
    """The batch; several where it is not published."""
    milliseconds: float | None = None
    """The dense engine's time."""
    why: str = ""
    """Why the estimate may be further away than ``TOLERANCE``."""


_ISSUE, _ONNXSIM = "NVIDIA/TensorRT #2310", "onnxsim `scripts/nvidia`"
_SLOWER = "slower than dense at this batch alone, although a builder takes the faster kernel; no estimate is below 1"
GAINS = (
    Measurement("UNet", "a100", "fp16", "reported without a batch", 1.13),
    Measurement("UNet", "a100", "int8", "reported without a batch", 1.10),
    Measurement("ResNet-18", "rtx3060", "int8", "reported without a batch", 1.08),
    Measurement("ResNeXt-101", "a100", "fp16", "NVIDIA's blog, 2021: up to", 1.20, (256,)),
    Measurement("ResNeXt-101", "a100", "int8", "NVIDIA's blog, 2021: up to", 1.20, (256,)),
    Measurement("InceptionV3", "a6000", "fp16", _ISSUE, 10.4 / 9.97, (32,)),
    Measurement("InceptionV3", "a6000", "fp16", _ISSUE, 19.83 / 19.08, (64,)),
    Measurement("InceptionV3", "a6000", "fp16", _ISSUE, 37.94 / 36.69, (128,)),
    Measurement("InceptionV3", "a6000", "fp16", _ISSUE, 74.73 / 91.86, (256,), why=_SLOWER),
    Measurement("ViT-B's MLPs", "orin-nano-super", "fp16", "onnxsim #1764", 1.27, (197,)),
    Measurement("ViT-B's MLPs", "orin-nano-super", "fp16", "onnxsim #1764", 1.20, (2048,)),
)
TIMES = (
    *(
        Measurement(network, "orin-nano-super", precision, _ONNXSIM, batches=(batch,), milliseconds=time)
        for network, precision, batch, time in (
            ("ResNet-18", "fp16", 1, 0.758),
            ("ResNet-18", "fp16", 8, 3.537),
            ("ResNet-18", "int8", 1, 0.485),
            ("ResNet-18", "int8", 8, 1.927),
            ("ResNet-50", "fp16", 1, 1.814),
            ("ResNet-50", "fp16", 8, 8.816),
            ("ResNet-50", "int8", 1, 1.190),
            ("ResNet-50", "int8", 8, 4.930),
            ("ViT-B's MLPs", "fp16", 197, 1.34),
            ("ViT-B's MLPs", "fp16", 2048, 12.2),
        )
    ),
    *(
        Measurement("InceptionV3", "a6000", "fp16", _ISSUE, batches=(batch,), milliseconds=time)
        for batch, time in ((32, 10.4), (256, 74.73))
    ),
)
THRESHOLD_GPUS = ("orin-nano", "rtx3060", "l4", "a10", "a40", "a100", "rtx4090", "h100")
_POSITIONS, _MAX_CHANNELS = 8 * 14 * 14, 2048


def predicted(measurement: Measurement, file: OnnxFile) -> dict[str, Any]:
    """Return a measurement and, for each of its batches, the estimated gain and milliseconds."""
    found = [
        predict(file, (batch, batch, batch), measurement.gpu, measurement.precision) for batch in measurement.batches
    ]
    estimates = [{"gain": each.bound, "milliseconds": 1e3 * (each.seconds or 0.0)} for each in found]
    return {**asdict(measurement), "predicted": estimates}


def threshold(gpu: str, taps: int, int8: bool) -> int | None:
    """Return the fewest channels, as many in as out, from which sparse kernels gain 2 % at 8 × 14² positions."""
    smallest = None
    for channels in range(_MAX_CHANNELS, 0, -128):
        product = Product(_POSITIONS, channels, channels, taps)
        weights = channels**2 * taps
        work = Workload(2 * (2 * _POSITIONS * channels + weights), 2 * weights, product)
        if dense_time(work, GPUS[gpu], int8).seconds < 1.02 * sparse_time(work, GPUS[gpu], int8).seconds:
            break
        smallest = channels
    return smallest


def page(text: str, raw: dict[str, Any]) -> str:
    """Return the page with its tables written again from the raw results."""
    tables = {"gains": _gains(raw["gains"]), "times": _times(raw["times"]), "thresholds": _thresholds(raw)}
    return fill(text, tables)


def deviation(row: dict[str, Any]) -> float:
    """Return how far the predicted gain is from the measured one, at the batch where it is furthest."""
    found = [each["gain"] / row["gain"] - 1 for each in row["predicted"]]
    return max(found, key=abs)


def _gains(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| network | GPU | precision | batch | measured | predicted | deviation | source | why it deviates |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        batches = ", ".join(map(str, row["batches"])) + (" (not published)" if len(row["batches"]) > 1 else "")
        gains = ", ".join(f"{each['gain']:.2f}×" for each in row["predicted"])
        cells = (row["network"], row["gpu"], row["precision"].upper(), batches, f"{row['gain']:.2f}×", gains)
        lines.append(table_line(*cells, f"{round(100 * deviation(row)):+d} %", row["source"], row["why"]))
    return lines


def _times(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| network | GPU | precision | batch | measured, ms | predicted, ms | deviation | source |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        (estimate,), (batch,) = row["predicted"], row["batches"]
        ratio = estimate["milliseconds"] / row["milliseconds"] - 1
        cells = (row["network"], row["gpu"], row["precision"].upper(), batch, row["milliseconds"])
        lines.append(table_line(*cells, f"{estimate['milliseconds']:.3g}", f"{round(100 * ratio):+d} %", row["source"]))
    return lines


def _thresholds(raw: dict[str, Any]) -> list[str]:
    lines = [
        "| GPU | 1×1, FP16 | 1×1, INT8 | 3×3, FP16 | 3×3, INT8 |",
        "| --- | --- | --- | --- | --- |",
    ]
    return lines + [table_line(gpu, *found) for gpu, found in raw["thresholds"].items()]


def main() -> None:
    """Estimate everything, and write the raw results and the page."""
    argparse.ArgumentParser(prog="python -m benchmarks.estimate", description=__doc__).parse_args()
    raw: dict[str, Any] = {"gains": [], "times": []}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, (make, shape) in NETWORKS.items():
            files[name] = OnnxFile(Path(folder, f"{len(files)}.onnx"))
            onnx.save(export_model(make().eval(), shape), str(files[name].path))
        for kind, measurements in (("gains", GAINS), ("times", TIMES)):
            raw[kind] = [predicted(each, files[each.network]) for each in measurements]
    kernels = [(taps, int8) for taps in (1, 9) for int8 in (False, True)]
    raw["thresholds"] = {gpu: [threshold(gpu, *kernel) for kernel in kernels] for gpu in THRESHOLD_GPUS}
    write_json(RAW, raw)
    write_text(PAGE, page(PAGE.read_text(), read_json(RAW)))


if __name__ == "__main__":
    main()
