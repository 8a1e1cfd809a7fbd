"""The gain of channel permutation in networks of torchvision: ``python -m benchmarks.permutation``.

Weights and images are random: the table shows that outputs stay the same and that every group of channels gains. It
does not show accuracy.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.pruning.records import Job
from benchmarks.pruning.workload import workload
from calibration.evaluation import distance, outputs_of
from sparsegpt_core.files import read_json, write_json, write_text
from sparsegpt_core.pruning import permute_model, prune_model
from sparsegpt_core.settings import PruneSettings

MODELS = ("torchvision:resnet50", "torchvision:mobilenet_v2", "torchvision:efficientnet_b0")
SETTINGS = PruneSettings()


def attempt(spec: str, images: int) -> dict[str, Any]:
    """Permute the channels of one network, and prune it with and without the permutation."""
    model, batches = workload(Job(spec, "default", images))
    reference = outputs_of(model, batches)
    errors = {}
    kept = copy.deepcopy(model)
    prune_model(kept, batches, SETTINGS)
    errors["kept"] = distance(reference, outputs_of(kept, batches)).logit_error
    start = time.perf_counter()
    result, why = permute_model(model, batches, SETTINGS)
    seconds = time.perf_counter() - start
    if result is None:
        sys.exit(f"error: {spec}: {why}")
    change = (outputs_of(model, batches) - reference).abs().max() / reference.abs().max()
    prune_model(model, batches, SETTINGS)
    errors["ordered"] = distance(reference, outputs_of(model, batches)).logit_error
    return {
        "model": spec,
        "images": images,
        "seconds": round(seconds, 1),
        "dense_change": float(change),
        "logit_errors": errors,
        "groups": [space.to_json() for space in result.spaces],
    }


def page(results: list[dict[str, Any]]) -> str:
    """The results as a page of documentation."""
    lines = [
        "# What channel permutation gains",
        f"Made by `python -m benchmarks.permutation` with torch {torch.__version__.split('+')[0]}: torchvision's "
        f"graphs, random weights, {results[0]['images']} random images at 224². The search minimises the loss, which "
        "is the pruned saliency relative to the layer's energy. A *group* is all layers that read the same channels. "
        "The change of the dense outputs is the largest one, relative to the largest output. The JSON next to this "
        "page has the numbers of every group.",
        "",
        "| network | permuted groups | groups with a smaller loss | loss after ÷ before | smallest … largest gain "
        "| groups left unchanged, and why | change of dense outputs | logit error, 2:4, unchanged → permuted | "
        "seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *map(_row, results)]) + "\n"


def _row(result: dict[str, Any]) -> str:
    groups = result["groups"]
    moved = [group for group in groups if not group["reason"]]
    ratios = [group["after"] / group["before"] for group in moved]
    total = sum(group["after"] for group in moved) / sum(group["before"] for group in moved)
    reasons = "; ".join(f"{', '.join(group['layers'])}: {group['reason']}" for group in groups if group["reason"])
    errors = result["logit_errors"]
    cells = (
        result["model"],
        f"{len(moved)} of {len(groups)}",
        sum(ratio < 1 for ratio in ratios),
        f"{total:.3f}",
        f"{1 - max(ratios):.1%} … {1 - min(ratios):.1%}",
        reasons,
        f"{result['dense_change']:.1e}",
        f"{errors['kept']:.3g} → {errors['ordered']:.3g}",
        result["seconds"],
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Measure all networks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.permutation", description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("docs/permutation.md"))
    options = parser.parse_args()
    data = options.out.with_suffix(".json")
    known = {result["model"]: result for result in read_json(data)} if data.exists() else {}
    for spec in options.models:
        known[spec] = attempt(spec, options.images)
        results = list(known.values())
        print(_row(known[spec]), flush=True)
        write_text(options.out, page(results))
        write_json(data, results)


if __name__ == "__main__":
    main()
