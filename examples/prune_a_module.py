"""Prune a PyTorch module, write it as ONNX, and verify the file. From Python alone, in half a minute.

python prune_a_module.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from digits import trained_network

import sparsegpt_trt as st
from calibration.evaluation import evaluate
from calibration.sampling import calibration_batches


def main() -> None:
    """Write dense.onnx and sparse.fp16.onnx here."""
    network, data = trained_network()
    st.save_model(st.export_model(network, (1, 8, 8)), Path("dense.onnx"))
    print(f"dense:  top-1 {evaluate(network, data.evaluation).top1:.2f} %")

    batches = calibration_batches(data.training, 256, 64, 0)  # any iterable of tensors does, such as a DataLoader
    result = st.prune_model(network, batches, st.PruneSettings(pattern="2:4"))  # in place
    print(f"sparse: top-1 {evaluate(network, data.evaluation).top1:.2f} %")
    for layer in result.layers:
        print(f"{layer.name:8} {layer.status:8} {layer.reason or ''}")

    pruned = [layer.name for layer in result.layers if layer.status == "pruned"]
    images = torch.cat(batches)[:8]  # the file is compared with PyTorch on these
    exporter = st.Exporter(network, images, {"data": "digits"}, st.parse_pattern("2:4"), pruned)
    file = exporter.write(Path("sparse.fp16.onnx"), "fp16")
    print(f"{file.path}: {file.audit.sparse_layers} layers are 2:4, relative error {file.parity.relative:.1e}")


if __name__ == "__main__":
    main()
