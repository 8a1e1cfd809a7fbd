"""NVIDIA Model Optimizer's SparseGPT in its own environment: MODEL BATCHES OUT, files of ``torch.save``."""

from __future__ import annotations

import sys

import modelopt.torch.sparsity as mts
import torch

from benchmarks.pruning.modelopt_arm import modelopt


def main() -> None:
    """Sparsify the model, apply its masks, and write the state dict."""
    model_file, batches_file, out = sys.argv[1:]
    model = torch.load(model_file, weights_only=False)
    modelopt(model, torch.load(batches_file, weights_only=True), ())
    torch.save(mts.export(model).state_dict(), out)


if __name__ == "__main__":
    main()
