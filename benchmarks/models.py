"""Prune a list of networks from torchvision and timm, and write the result of each: ``make models``.

Weights and images are random: the table shows which networks can be pruned, how, and why not, not their accuracy.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.files import read_json, write_json, write_text
from sparsegpt_core.pruning import PruneResult, prune_model
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.zoo import ModelShape, build_model

MODELS = (
    "torchvision:alexnet",
    "torchvision:convnext_tiny",
    "torchvision:densenet121",
    "torchvision:efficientnet_b0",
    "torchvision:efficientnet_v2_s",
    "torchvision:googlenet",
    "torchvision:inception_v3",
    "torchvision:mnasnet1_0",
    "torchvision:mobilenet_v2",
    "torchvision:mobilenet_v3_large",
    "torchvision:regnet_x_400mf",
    "torchvision:regnet_y_400mf",
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:resnext50_32x4d",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:squeezenet1_1",
    "torchvision:swin_t",
    "torchvision:vit_b_16",
    "torchvision:wide_resnet50_2",
    "timm:convnext_atto",
    "timm:cspresnet50",
    "timm:darknet53",
    "timm:dla34",
    "timm:dpn68",
    "timm:ecaresnet26t",
    "timm:edgenext_xx_small",
    "timm:ese_vovnet19b_dw",
    "timm:gernet_s",
    "timm:ghostnet_100",
    "timm:hardcorenas_a",
    "timm:hrnet_w18_small",
    "timm:inception_v4",
    "timm:lcnet_050",
    "timm:mixnet_s",
    "timm:nfnet_l0",
    "timm:regnety_002",
    "timm:repvgg_a0",
    "timm:res2net50_26w_4s",
    "timm:resnest14d",
    "timm:resnetv2_50",
    "timm:rexnet_100",
    "timm:selecsls42",
    "timm:seresnet50",
    "timm:skresnet18",
    "timm:tf_efficientnet_b0",
    "timm:tinynet_e",
    "timm:vovnet39a",
    "timm:xception41",
)
SIDES = {"torchvision:inception_v3": 299, "torchvision:vit_b_16": 224, "torchvision:swin_t": 224}
IMAGES = 4


def attempt(spec: str) -> dict[str, Any]:
    """Prune one network; an error is part of the result."""
    side = SIDES.get(spec, 160)
    torch.manual_seed(0)
    model = build_model(spec, ModelShape((3, side, side)))
    start = time.perf_counter()
    try:
        result = prune_model(model, [torch.randn(IMAGES, 3, side, side)], PruneSettings())
    except SparseGPTError as error:
        return {"model": spec, "error": str(error)}
    return {"model": spec, "side": side, "seconds": round(time.perf_counter() - start, 1), **_describe(result)}


def _describe(result: PruneResult) -> dict[str, Any]:
    reasons = Counter(layer.reason.value for layer in result.layers if layer.reason)
    return {
        "layers": len(result.layers),
        "pruned": result.pruned,
        "reasons": dict(sorted(reasons.items())),
        "warnings": list(result.warnings),
    }


def table(results: list[dict[str, Any]]) -> str:
    """The results as a page of documentation."""
    pruned = sum("error" not in result for result in results)
    lines = [
        "# Tried networks",
        f"Made by `make models` with torch {torch.__version__.split('+')[0]}, torchvision "
        f"{torchvision.__version__.split('+')[0]} and timm {timm.__version__}: {pruned} of {len(results)} networks "
        f"prune to 2:4 without an error. Weights and the {IMAGES} images are random: the table shows what can be "
        "pruned and how, not accuracy.",
        "",
        "*Method* says how a network was calibrated: one walk over the traced graph, or one forward pass for each "
        "layer if the network cannot be traced. [reasons.md](reasons.md) explains why layers stay dense.",
        "",
        "| network | side | layers | 2:4 | dense layers and why | method | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *map(_row, results)]) + "\n"


def _row(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"| {result['model']} | | | | {result['error']} | | |"
    reasons = ", ".join(f"{count} {reason}" for reason, count in result["reasons"].items())
    fallback = [warning for warning in result["warnings"] if "forward pass" in warning]
    cells = (result["model"], result["side"], result["layers"], result["pruned"], reasons, *(fallback or ["walk"]))
    return f"| {' | '.join(map(str, cells))} | {result['seconds']} |"


def main() -> int:
    """Prune all networks; exit 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS, help="default: all")
    parser.add_argument("--out", type=Path, default=Path("docs/models.md"))
    parser.add_argument("--fresh", action="store_true", help="repeat the networks that the page already has")
    options = parser.parse_args()
    page, data = options.out, options.out.with_suffix(".json")
    known = {result["model"]: result for result in read_json(data)} if data.exists() and not options.fresh else {}
    for spec in options.models:
        if spec not in known:
            known[spec] = attempt(spec)
            print(_row(known[spec]), flush=True)
        results = [known[spec] for spec in options.models if spec in known]
        write_text(page, table(results))
        write_json(data, results)
    return 1 if any("error" in result for result in known.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
