"""Does the ONNX file compute what the PyTorch model does, on real samples?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from export.onnx_writer import INPUT, OUTPUT
from sparsegpt_core.errors import CheckFailedError, ModelError

__all__ = ["Parity", "check_parity"]


@dataclass(frozen=True)
class Parity:
    """Differences of logits between ONNX Runtime and PyTorch.

    ``max_abs`` and ``mean_abs`` are in logits, ``relative`` is ‖difference‖ / ‖logits‖, ``top1_agreement``
    is in percent of ``samples``.
    """

    max_abs: float
    mean_abs: float
    relative: float
    top1_agreement: float
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return asdict(self)


def check_parity(path: Path, model: nn.Module, images: Tensor, tolerance: float = 1e-3) -> Parity:
    """Run both on the same images.

    Args:
        path: The ONNX file.
        model: The model it was exported from, in eval mode.
        images: (N, C, H, W), normalised as the model wants them.
        tolerance: The largest ``relative`` difference allowed; FP32 kernels differ by about 1e-6.

    Raises:
        CheckFailedError: The outputs differ by more than the tolerance.
        ModelError: ONNX Runtime cannot load the file.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        expected = model(images.to(device)).float().cpu().numpy()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise ModelError(f"ONNX Runtime cannot load {path}: {error}") from error
    actual = session.run([OUTPUT], {INPUT: images.cpu().numpy()})[0]
    difference = np.abs(actual - expected)
    scale = float(np.linalg.norm(expected)) or 1.0
    parity = Parity(
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        relative=float(np.linalg.norm(difference)) / scale,
        top1_agreement=100 * float((actual.argmax(1) == expected.argmax(1)).mean()),
        samples=len(images),
    )
    if not parity.relative <= tolerance:
        raise CheckFailedError(
            f"{path.name} differs from PyTorch by {parity.relative:.2g} of its logits (allowed: {tolerance:g})",
            "The export is wrong or a value overflows; compare with --precision fp32.",
        )
    return parity
