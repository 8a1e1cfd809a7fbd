"""The accuracy that FP16 and INT8 cost a pruned network: ``python -m benchmarks.precision CHECKPOINT``.

The checkpoint comes from ``sparsegpt-trt train --data fashion-mnist``. Every file is evaluated on all evaluation
images in ONNX Runtime. After a kill, the next start continues with the seed that was interrupted.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from benchmarks.trained import DATA_ROOT, Trained, load_trained
from calibration.evaluation import distance
from calibration.sampling import calibration_batches
from deploy.sessions import OnnxSession
from export.exporter import Exporter
from sparsegpt_cli.jobs.int8_graphs import Int8Quantiser
from sparsegpt_core.files import read_json, write_json, write_text
from sparsegpt_core.network import Int8Weight
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings

SAMPLES = 256
SETTINGS = PruneSettings()
ARMS = {
    "dense": "dense FP32",
    "dense_int8": "dense INT8",
    "fp32": "2:4 FP32",
    "fp16": "2:4 FP16",
    "rounded": "2:4 INT8, rounded after pruning",
    "int8": "2:4 INT8, rounded while pruning",
    "rounded_weights": "2:4, only weights in INT8, rounded after pruning",
    "int8_weights": "2:4, only weights in INT8, rounded while pruning",
}
PRUNED = ("fp32", "fp16", "int8", "int8_weights")


def measure(trained: Trained, seed: int) -> dict[str, dict[str, float]]:
    """Prune and export with one draw of calibration images, and evaluate every file."""
    batches = calibration_batches(trained.training, SAMPLES, 32, seed)
    model = copy.deepcopy(trained.model)
    dense = _logits(trained, model, batches, [], ("fp32", "int8"))
    result = prune_model(model, batches, SETTINGS, int8_weights=True)
    pruned = [layer.name for layer in result.layers if layer.status == "pruned"]
    sparse = _logits(trained, model, batches, pruned, PRUNED, result.int8_weights)
    rounded = _logits(trained, model, batches, pruned, ("int8", "int8_weights"))
    logits = {"dense": dense["fp32"], "dense_int8": dense["int8"], **sparse}
    logits |= {"rounded": rounded["int8"], "rounded_weights": rounded["int8_weights"]}
    reference = {arm: "dense" if arm.startswith("dense") else "fp32" for arm in ARMS}
    return {
        arm: {
            "top1": 100 * float((logits[arm].argmax(1) == trained.labels).double().mean()),
            **distance(logits[reference[arm]], logits[arm]).to_json(),
            "dense_error": distance(logits["dense"], logits[arm]).logit_error,
        }
        for arm in ARMS
    }


def _logits(
    trained: Trained,
    model: nn.Module,
    batches: list[Tensor],
    pruned: list[str],
    precisions: tuple[str, ...],
    int8_weights: Mapping[str, Int8Weight] | None = None,
) -> dict[str, Tensor]:
    """The logits (N, classes) of the model's file in each precision."""
    quantiser = Int8Quantiser(batches, int8_weights or {})
    exporter = Exporter(model, batches[0], {}, SETTINGS.pattern, pruned, quantise=quantiser)
    found, path = {}, Path()
    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions:
            if precision == "int8_weights":  # the previous file, without Q and DQ on activations
                _without_activations(path)
            else:
                path = exporter.write(Path(folder) / "model.onnx", precision).path
            session = OnnxSession(path)
            logits = np.concatenate([session.run(images.numpy()) for images in trained.images])
            found[precision] = torch.from_numpy(logits).double()
    return found


def _without_activations(path: Path) -> None:
    """Remove the Q and DQ pairs on activations from a file."""
    model = onnx.load(path)
    quantised = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    pairs = {node.output[0]: quantised[node.input[0]] for node in model.graph.node if node.input[0] in quantised}
    for node in model.graph.node:
        node.input[:] = [pairs.get(name, name) for name in node.input]
    onnx.save(model, path)


def page(about: dict[str, Any], seeds: dict[str, Any]) -> str:
    """The results as a page of documentation."""
    lines = [
        "# What FP16 and INT8 cost",
        f"Made by `python -m benchmarks.precision CHECKPOINT`: {about['model']} on Fashion-MNIST, {SAMPLES} "
        f"calibration images, {about['judged']} test images, ONNX Runtime {about['onnxruntime']} on a CPU (which "
        f"computes FP16 files in FP32 with FP16 weights). Numbers are means over {len(seeds)} draws of the calibration "
        "images, with (smallest … largest). Disagreement and logit error compare with the FP32 file of the same "
        "network. The last column is the logit error against the dense FP32 file. In INT8 files the first convolution "
        "and the classifier stay in floating point.",
        "",
        "| file | top-1, % | disagreement, % | logit error | to dense |",
        "| --- | --- | --- | --- | --- |",
    ]
    for arm, title in ARMS.items():
        cells = [title]
        for metric, style in (("top1", ".2f"), ("disagreement", ".2f"), ("logit_error", ".1e"), ("dense_error", ".2e")):
            values = [seed[arm][metric] for seed in seeds.values()]
            cells.append(f"{np.mean(values):{style}} ({min(values):{style}} … {max(values):{style}})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the missing measurements."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT)
    parser.add_argument("--out", type=Path, default=Path("docs/precision.md"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--judged", type=int, default=10_000, help="number of evaluation images")
    options = parser.parse_args()
    trained = load_trained(options.checkpoint, options.data_root, options.judged)
    about = {
        "model": trained.name,
        "checkpoint_sha256": trained.sha256,
        "judged": options.judged,
        "onnxruntime": onnxruntime.__version__,
    }
    data = options.out.with_suffix(".json")
    known = read_json(data) if data.exists() else {"about": about, "seeds": {}}
    if known["about"] != about:
        sys.exit(f"error: {data} is of another checkpoint or number of images\nhint: give another --out")
    for seed in map(str, options.seeds):
        if seed not in known["seeds"]:
            known["seeds"][seed] = measure(trained, int(seed))
            print(seed, known["seeds"][seed], flush=True)
            write_json(data, known)
            write_text(options.out, page(about, known["seeds"]))


if __name__ == "__main__":
    main()
