"""Writes the ONNX files for engines: ``python -m benchmarks.gpu.models OUT [--checkpoint resnet18.safetensors]``.

Untrained networks, pruned 2:4 by magnitude, show latency. The trained network shows accuracy.
"""

from __future__ import annotations

import argparse
import copy
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.gpu.machine import errors_in_one_line
from benchmarks.trained import DATA_ROOT, load_trained
from calibration.recovery import reestimate_batchnorm
from calibration.sampling import calibration_batches
from export.exporter import Exporter, ExportSettings
from sparsegpt_cli.jobs.int8_graphs import Int8Quantiser
from sparsegpt_core.files import atomic_path, write_json
from sparsegpt_core.patterns import NM
from sparsegpt_core.pruning import PruneResult, prune_model
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.zoo import ModelShape, build_model

NETWORKS = {
    "resnet18": "torchvision:resnet18",
    "resnet50": "torchvision:resnet50",
    "vgg16": "torchvision:vgg16",
    "resnext101": "torchvision:resnext101_32x8d",  # grouped convolutions: not eligible, and explained
    "wide": "benchmarks.gpu.models:wide",
}
TRAINED = "fashion-mnist"
PRECISIONS = ("fp16", "int8")
SIDE = 224
SAMPLES = 256  # calibration images of the trained network
EXPORT = ExportSettings(opset=17, ranges="max")  # for TensorRT 8.6; the fastest ranges


def wide() -> nn.Module:
    """Eight 3×3 convolutions of 512 channels on 28×28, which gain the most from sparsity."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Conv2d(3, 512, 8, 8))
    for number in range(8):
        layers[f"conv{number}"] = nn.Conv2d(512, 512, 3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(512, 10))
    return nn.Sequential(layers)


def write_untrained(name: str, out: Path) -> None:
    """Write a network's dense and sparse files in every precision."""
    torch.manual_seed(0)
    images = [torch.randn(4, 3, SIDE, SIDE) for _ in range(2)]
    model = build_model(NETWORKS[name], ModelShape((3, SIDE, SIDE))).eval()
    reestimate_batchnorm(model, images)
    sparse = copy.deepcopy(model)
    result = prune_model(sparse, images, PruneSettings(method="magnitude"))
    _write(out, name, model, sparse, images, result)


def write_trained(checkpoint: Path, data_root: Path, out: Path) -> None:
    """Write the trained network's files, all test images and PyTorch's outputs of both networks."""
    trained = load_trained(checkpoint, data_root, None)
    batches = calibration_batches(trained.training, SAMPLES, 32, 0)
    sparse = copy.deepcopy(trained.model)
    result = prune_model(sparse, batches, PruneSettings(), int8_weights=True)
    _write(out, TRAINED, trained.model, sparse, batches, result)
    with torch.no_grad():
        outputs = torch.cat([sparse(images) for images in trained.images])
    top1 = {
        arm: 100 * float((logits.argmax(1) == trained.labels).double().mean())
        for arm, logits in (("dense", trained.outputs), ("sparse", outputs))
    }
    write_json(out / f"{TRAINED}.json", {"checkpoint_sha256": trained.sha256, "pytorch_top1": top1})
    _write_images(out / f"{TRAINED}.npz", torch.cat(trained.images), trained.labels)


def _write(
    out: Path, name: str, dense: nn.Module, sparse: nn.Module, batches: list[Tensor], result: PruneResult
) -> None:
    pruned = [layer.name for layer in result.layers if layer.status == "pruned"]
    for arm, model, layers, int8_weights in (("dense", dense, [], {}), ("sparse", sparse, pruned, result.int8_weights)):
        quantiser = Int8Quantiser(batches, int8_weights)
        exporter = Exporter(model, batches[0], {}, NM(2, 4), layers, EXPORT, quantise=quantiser)
        for precision in PRECISIONS:
            exporter.write(out / f"{name}.{arm}.{precision}.onnx", precision)


def _write_images(path: Path, images: Tensor, labels: Tensor) -> None:
    import numpy as np

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, images=images.numpy().astype(np.float16), labels=labels.numpy())


def main() -> None:
    """Write the missing files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.models", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="a network trained on Fashion-MNIST")
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.networks:
        if not (options.out / f"{name}.sparse.{PRECISIONS[-1]}.onnx").exists():
            write_untrained(name, options.out)
            print(name, flush=True)
    if options.checkpoint and not (options.out / f"{TRAINED}.npz").exists():
        with errors_in_one_line():
            write_trained(options.checkpoint, options.data_root, options.out)
        print(TRAINED, flush=True)


if __name__ == "__main__":
    main()
