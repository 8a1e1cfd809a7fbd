"""Result rows for tests of tables and pictures."""

from __future__ import annotations

import random
from itertools import product

from sparsegpt_core.patterns import parse_pattern

LAYERS = ("stem", "layer1.0.conv1", "head")


def tables(
    checkpoints=(("net", "cnn", 90.0),),
    methods=("magnitude", "sparsegpt", "balanced"),
    patterns=("2:4", "0.9"),
    sizes=(256,),
    seeds=(0, 1),
    layers=LAYERS,
    labelled=True,
):
    """Return the rows of results and layers of a sweep over this grid."""
    chance = random.Random(0)
    rows, found = [], []
    for (name, model, top1), method, pattern in product(checkpoints, methods, patterns):
        free = method == "magnitude"
        for samples, seed in [(None, None)] if free else product(sizes, seeds):
            cell = {"checkpoint": name, "model": model, "method": method, "pattern": pattern}
            cell |= {"samples": samples, "seed": seed}
            lost = chance.uniform(-0.1, 30)
            rows.append(
                {
                    **cell,
                    "dense_top1": top1 if labelled else None,
                    "difference": -lost if labelled else None,
                    "disagreement": abs(lost),
                }
            )
            for layer in layers:
                error = chance.lognormvariate(-5, 1) * parse_pattern(pattern).sparsity
                found.append(
                    {
                        **cell,
                        "layer": layer,
                        "status": "dense" if layer == "head" else "pruned",
                        "relative_error": None if free else error,
                        "magnitude_error": None if free or method == "cnn-sparsegpt" else 20 * error,
                        "sensitivity": None,
                    }
                )
    return rows, found
