"""How far a pruned network's outputs are from the dense network's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from benchmarks.real_networks.networks import RealNetwork
from calibration.evaluation import distance

__all__ = ["METRICS", "compare", "top1"]

METRICS = {
    "top1": ("top-1, %", ".1f"),
    "disagreement": ("disagreement, %", ".1f"),
    "kl": ("KL", ".3f"),
    "psnr": ("PSNR, dB", ".1f"),
    "error": ("relative error", ".3g"),
    "cosine": ("cosine", ".4f"),
}
"""The title and the format of each metric, in the order of columns."""


def compare(
    network: RealNetwork, dense: Tensor, pruned: Tensor, labels: npt.NDArray[np.int64] | None
) -> dict[str, float]:
    """Compare outputs (N, ...), and a classifier's logits with labels (N,) too.

    The relative error is ‖dense − pruned‖² / ‖dense‖²; the cosine is that of one photo's outputs, on average. PSNR is
    for images from 0 to 1.
    """
    flat, other = dense.flatten(1), pruned.flatten(1)
    products = (flat * other).sum(1) / (flat.norm(dim=1) * other.norm(dim=1)).clamp_min(1e-300)
    error = float((dense - pruned).square().sum() / dense.square().sum())
    found = {"error": error, "cosine": float(products.mean())}
    if network.makes_images:
        apart = (dense.clamp(0, 1) - pruned.clamp(0, 1)).square().flatten(1).mean(1)
        found["psnr"] = float((-10 * apart.log10()).mean())
    if (axis := network.inputs.classes) is not None:
        found["disagreement"] = 100 * float((dense.argmax(axis) != pruned.argmax(axis)).double().mean())
    if network.inputs.logits:
        found["kl"] = distance(dense, pruned).kl
    if labels is not None:
        found["top1"] = top1(pruned, labels)
    return found


def top1(outputs: Tensor, labels: npt.NDArray[np.int64]) -> float:
    """Return the percentage of photos whose class is right."""
    return 100 * float((outputs.argmax(1).numpy() == labels).mean())
