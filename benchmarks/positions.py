"""The accuracy lost when statistics sample fewer positions: ``python -m benchmarks.positions CHECKPOINT``.

The checkpoint comes from ``sparsegpt-trt train --data fashion-mnist``; docs/decisions/0008 has the results.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

from benchmarks.trained import DATA_ROOT, load_trained
from calibration.evaluation import distance, outputs_of
from calibration.sampling import calibration_batches
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings

SAMPLES, JUDGED = 256, 1000


def main() -> None:
    """Print a line for each draw of calibration images and each number of positions."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.positions", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT)
    parser.add_argument("--positions", type=float, nargs="+", default=[0, 80, 40, 20, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    trained = load_trained(options.checkpoint, options.data_root, JUDGED)
    print("seed  positions/column  used %  logit error  disagrees %  seconds")
    for seed in options.seeds:
        batches = calibration_batches(trained.training, SAMPLES, 32, seed)
        for positions in options.positions:
            pruned = copy.deepcopy(trained.model)
            result = prune_model(pruned, batches, PruneSettings(positions_per_column=positions))
            found = distance(trained.outputs, outputs_of(pruned, trained.images))
            layers = [layer for layer in result.layers if layer.positions]
            used = 100 * sum(layer.positions_used for layer in layers) / sum(layer.positions for layer in layers)
            seconds = sum(result.seconds.values())
            errors = f"{found.logit_error:12.6f} {found.disagreement:12.2f}"
            print(f"{seed:4} {positions:17g} {used:7.1f} {errors} {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
