"""What a network loses by looking at fewer positions: ``python -m benchmarks.positions CHECKPOINT``.

The checkpoint is one of ``sparsegpt-trt train --data fashion-mnist``; docs/decisions/0008 has the results.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from calibration.arrays import open_data, subset
from calibration.sampling import calibration_batches
from sparsegpt_core.checkpoint import load_checkpoint, load_into
from sparsegpt_core.sequential import prune_model
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.zoo import ModelShape, build_model

SAMPLES, HELD_OUT, BATCH = 256, 1000, 100


def main() -> None:
    """Print a line for every draw of calibration images and number of positions."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.positions", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-root", type=Path, default=Path("/usr/share/datasets"))
    parser.add_argument("--positions", type=float, nargs="+", default=[0, 80, 40, 20, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.checkpoint)
    noted = checkpoint.metadata
    data = open_data("fashion-mnist", root=options.data_root, mean=noted["mean"], std=noted["std"])
    model = build_model(noted["model"], ModelShape(tuple(noted["image"]), noted["num_classes"])).eval()
    load_into(model, checkpoint.state)
    indices = subset(data.evaluation, HELD_OUT, 0)
    images = [torch.from_numpy(batch[0]) for batch in data.evaluation.batches(BATCH, indices)]
    reference = logits(model, images)
    print("seed  positions/column  used %  logit error  disagrees %  seconds")
    for seed in options.seeds:
        batches = calibration_batches(data.training, SAMPLES, 32, seed)
        for positions in options.positions:
            pruned = copy.deepcopy(model)
            result = prune_model(pruned, batches, PruneSettings(positions_per_column=positions))
            found = logits(pruned, images)
            error = float((reference - found).square().sum() / reference.square().sum())
            disagreement = 100 * float((reference.argmax(1) != found.argmax(1)).double().mean())
            layers = [layer for layer in result.layers if layer.positions]
            used = 100 * sum(layer.positions_used for layer in layers) / sum(layer.positions for layer in layers)
            seconds = sum(result.seconds.values())
            print(f"{seed:4} {positions:17g} {used:7.1f} {error:12.6f} {disagreement:12.2f} {seconds:8.1f}", flush=True)


def logits(model: nn.Module, images: list[Tensor]) -> Tensor:
    """The model's outputs (N, classes), in float64."""
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in images]).double()


if __name__ == "__main__":
    main()
