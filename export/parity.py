"""Does the ONNX file compute what the PyTorch model does, on real samples?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn

from export.onnx_writer import INPUT, OUTPUT
from sparsegpt_core.errors import CheckFailedError, ModelError, NumericsError
from sparsegpt_core.layout import device_of

__all__ = ["Parity", "check_parity"]

_HINT = "Give a file exported from this model."


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


def check_parity(path: Path, model: nn.Module, images: Tensor, tolerance: float = 1e-3, name: str = "") -> Parity:
    """Run both on the same images.

    ONNX Runtime's CPU kernels compute most of an FP16 graph in FP32: the comparison shows what rounding the
    weights costs, not whether a value between the layers would overflow FP16.

    Args:
        path: The ONNX file.
        model: The model it was exported from, in eval mode.
        images: (N, C, H, W), normalised as the model wants them.
        tolerance: The largest ``relative`` difference allowed; FP32 kernels differ by about 1e-6.
        name: What to call the file in messages, by default its own name.

    Raises:
        CheckFailedError: The outputs differ by more than the tolerance.
        NumericsError: An output is NaN or infinite.
        ModelError: ONNX Runtime cannot run the file, or it is another model's.
    """
    with torch.inference_mode():
        expected = model(images.to(device_of(model))).float().cpu().numpy()
    if not np.isfinite(expected).all():
        raise NumericsError("the PyTorch model's outputs are not finite", "Check its weights, and --mean and --std.")
    actual = _run(path, images.cpu().numpy())
    if actual.shape != expected.shape:
        raise ModelError(f"{path} gives outputs of shape {actual.shape}, PyTorch of {expected.shape}", _HINT)
    if not np.isfinite(actual).all():
        raise NumericsError(
            f"{name or path.name} gives NaN or infinity where PyTorch does not: a value overflows",
            "Export with --precision fp32.",
        )
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
            f"{name or path.name} differs from PyTorch by {parity.relative:.2g} of its logits (allowed: {tolerance:g})",
            "The export is wrong or its precision too low; compare with --precision fp32.",
        )
    return parity


def _run(path: Path, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal: errors are raised as well
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        logits: npt.NDArray[Any] = session.run([OUTPUT], {INPUT: images})[0]
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise ModelError(f"ONNX Runtime cannot run {path}: {error}", _HINT) from error
    return logits
