"""Prune by magnitude, export and build networks of torchvision's and timm's in every precision: ``make exports``.

Weights and images are random: the table shows which networks can be exported, built and audited, not their accuracy.
Detectors end with a selection of boxes by score, which has no sparse layers. They are exported up to the scores and
offsets of all anchors, or as their backbones alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection

from calibration.recovery import reestimate_batchnorm
from deploy.builder import BuildSettings, build_engine
from export.exporter import Exporter, ExportSettings
from sparsegpt_cli.jobs.int8_graphs import Int8Quantiser
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.files import read_json, write_json, write_text
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.zoo import ModelShape, build_model

SETTINGS = PruneSettings(method="magnitude")
PRECISIONS = ("fp32", "fp16", "int8")
BATCHES, IMAGES = 2, 4
EXPORT = ExportSettings(ranges="max")  # the quickest


class Anchors(nn.Module):
    """A detector's scores and offsets for all anchors, (N, anchors, classes) and (N, anchors, 4)."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.head(list(self.backbone(images).values()))
        return found


_UNTRAINED: dict[str, Any] = {"weights": None, "weights_backbone": None}
DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "retinanet_resnet50_fpn": lambda: Anchors(detection.retinanet_resnet50_fpn(**_UNTRAINED)),
    "ssd300_vgg16": lambda: Anchors(detection.ssd300_vgg16(**_UNTRAINED)),
    "ssdlite320_mobilenet_v3_large, backbone": lambda: detection.ssdlite320_mobilenet_v3_large(**_UNTRAINED).backbone,
    "fasterrcnn_resnet50_fpn, backbone": lambda: detection.fasterrcnn_resnet50_fpn(**_UNTRAINED).backbone,
    "fcos_resnet50_fpn, backbone": lambda: detection.fcos_resnet50_fpn(**_UNTRAINED).backbone,
}
NETWORKS = (
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:vgg16",
    *DETECTORS,
    "torchvision:fcn_resnet50",
    "torchvision:deeplabv3_resnet50",
    "torchvision:deeplabv3_mobilenet_v3_large",
    "torchvision:lraspp_mobilenet_v3_large",
    "torchvision:resnext50_32x4d",
    "torchvision:vgg11_bn",
    "torchvision:alexnet",
    "torchvision:densenet121",
    "torchvision:googlenet",
    "torchvision:inception_v3",
    "torchvision:squeezenet1_1",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:mobilenet_v2",
    "torchvision:mobilenet_v3_large",
    "torchvision:mnasnet1_0",
    "torchvision:efficientnet_b0",
    "torchvision:regnet_y_400mf",
    "torchvision:convnext_tiny",
    "torchvision:vit_b_16",
    "torchvision:swin_t",
    "timm:repvgg_a0",
    "timm:dla34",
    "timm:hrnet_w18_small",
    "timm:res2net50_26w_4s",
    "timm:cspresnet50",
    "timm:ghostnet_100",
)
SIDES = {
    "torchvision:resnet18": 224,
    "torchvision:resnet50": 224,
    "torchvision:vgg16": 224,
    "torchvision:inception_v3": 299,
    "torchvision:vit_b_16": 224,
    "retinanet_resnet50_fpn": 320,
    "ssd300_vgg16": 300,
}
AMPERE = BuildSettings(backend="tensorrt-rtx", compute_capability="8.6")


def attempt(name: str) -> dict[str, Any]:
    """Export and build one network in every precision; an error is part of the result."""
    side = SIDES.get(name, 96)
    torch.manual_seed(0)
    batches = [torch.randn(IMAGES, 3, side, side) for _ in range(BATCHES)]
    start = time.perf_counter()
    try:
        model = DETECTORS[name]() if name in DETECTORS else build_model(name, ModelShape((3, side, side)))
        _fill_zero_weights(model)
        reestimate_batchnorm(model.eval(), batches)
        result = prune_model(model, batches, SETTINGS)
        pruned = [layer.name for layer in result.layers if layer.status == "pruned"]
        exporter = Exporter(model, batches[0], {}, SETTINGS.pattern, pruned, EXPORT, quantise=Int8Quantiser(batches))
    except SparseGPTError as error:
        return {"model": name, "error": str(error)}
    files = {precision: _write(exporter, precision) for precision in PRECISIONS}
    seconds = round(time.perf_counter() - start, 1)
    return {"model": name, "side": side, "pruned": len(pruned), "seconds": seconds, "files": files}


def _fill_zero_weights(model: nn.Module) -> None:
    """Give layers that start with zeros, such as the head of torchvision's ViT, random weights: zeros prove nothing."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and not module.weight.any():
            module.reset_parameters()


def _write(exporter: Exporter, precision: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            file = exporter.write(Path(folder) / "model.onnx", precision)
            found = {
                "relative": file.parity.relative,
                "bytes": file.path.stat().st_size,
                "warnings": list(file.warnings),
            }
            if precision != "fp32":  # FP32 has no sparse kernels
                built = build_engine(file.path, Path(folder) / "model.plan", AMPERE)
                found |= {
                    "eligible_layers": built.eligible_layers,
                    "plan_bytes": built.bytes,
                    "build_seconds": built.seconds,
                    "builder": f"{built.backend} {built.backend_version}",
                }
        except SparseGPTError as error:
            return {"error": str(error)}
        return found


def page(results: list[dict[str, Any]]) -> str:
    """The results as a page of documentation."""
    whole = sum(all("error" not in file for file in result.get("files", {"": result}).values()) for result in results)
    lines = [
        "# Exported networks",
        f"Made by `make exports` with torch {torch.__version__.split('+')[0]}, torchvision "
        f"{torchvision.__version__.split('+')[0]}, ONNX Runtime {onnxruntime.__version__} and TensorRT-RTX: {whole} of "
        f"{len(results)} networks have a file in every precision that passes ONNX's checker and our audit of each "
        "pruned layer's zeros, and has PyTorch's outputs. Their FP16 and INT8 files are also built for compute "
        "capability 8.6. Weights and images are random, and the networks are pruned 2:4 by magnitude: the table shows "
        "what can be exported and built, not accuracy or speed.",
        "",
        "A number is ‖difference to PyTorch‖ ÷ ‖output‖ in ONNX Runtime, the largest of all outputs. The brackets give "
        "the number of layers that are eligible for sparse kernels, and the plan's size. A detector is exported up to "
        "the scores and offsets of all anchors, or only its backbone. Layers without trained values, such as a head of "
        "zeros, have random weights.",
        "",
        "| network | side | 2:4 layers | FP32 | FP16 | INT8 | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *map(_row, results)]) + "\n"


def _row(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"| {result['model']} | | | {result['error']} | | | |"
    cells = (
        result["model"],
        result["side"],
        result["pruned"],
        *map(_cell, result["files"].values()),
        result["seconds"],
    )
    return f"| {' | '.join(map(str, cells))} |"


def _cell(file: dict[str, Any]) -> str:
    if "error" in file:
        return str(file["error"])
    built = f" ({file['eligible_layers']}, {file['plan_bytes'] / 1e6:.1f} MB)" if "plan_bytes" in file else ""
    return f"{file['relative']:.1e}{built}"


def main() -> None:
    """Test all networks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exports", description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="default: all")
    parser.add_argument("--out", type=Path, default=Path("docs/exports.md"))
    parser.add_argument("--fresh", action="store_true", help="repeat the networks that the page already has")
    options = parser.parse_args()
    data = options.out.with_suffix(".json")
    known = {result["model"]: result for result in read_json(data)} if data.exists() else {}
    for name in options.networks:
        if name not in known or options.fresh:
            known[name] = attempt(name)
            print(_row(known[name]), flush=True)
        results = list(known.values())
        write_text(options.out, page(results))
        write_json(data, results)


if __name__ == "__main__":
    main()
