"""Does the ONNX file compute what the PyTorch model does, on real samples? If not, where does it go off?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from export.execution import CpuSession
from export.parity.fault_finder import find_fault, torch_values
from sparsegpt_core.errors import CheckFailedError, ModelError, NumericsError, first_line
from sparsegpt_core.execution import device_of

__all__ = ["Parity", "check_parity"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Parity:
    """Differences of outputs between ONNX Runtime and PyTorch.

    ``max_abs`` and ``mean_abs`` are over all outputs, in their own unit; ``relative`` is the largest over the outputs
    of ‖difference‖ / ‖output‖. ``top1_agreement`` is of the first output, in percent of ``samples`` or, for maps, of
    their pixels; None where it has no axis of classes.
    """

    max_abs: float
    mean_abs: float
    relative: float
    top1_agreement: float | None
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return asdict(self)


def check_parity(
    path: Path, model: nn.Module, images: Tensor | Sequence[Tensor], tolerance: float = 1e-3, name: str = ""
) -> Parity:
    """Run both on the same images.

    ONNX Runtime's CPU kernels compute most of an FP16 graph in FP32: the comparison shows what rounding the
    weights costs, not whether a value between the layers would overflow FP16.

    Args:
        path: The ONNX file.
        model: The model it was exported from, in eval mode.
        images: (N, C, H, W), normalised as the model wants them; one tensor for each of several inputs.
        tolerance: The largest ``relative`` difference allowed; FP32 kernels differ by about 1e-6.
        name: What to call the file in messages, by default its own name.

    Raises:
        CheckFailedError: The outputs differ by more than the tolerance; names the node where they begin to.
        NumericsError: An output is NaN or infinite; names the node likewise.
        ModelError: ONNX Runtime cannot run the file, or it is another model's.
    """
    inputs = [images] if isinstance(images, Tensor) else list(images)
    name = name or path.name
    expected = _outputs(model, inputs)
    if not all(np.isfinite(each).all() for each in expected):
        raise NumericsError("the PyTorch model's outputs are not finite", "Check its weights, and --mean and --std.")
    runtime = CpuSession(path, str(path))
    actual = [each.astype(np.float32) for each in runtime.run([each.cpu().numpy() for each in inputs])]
    if [each.shape for each in actual] != [each.shape for each in expected]:
        raise ModelError(
            f"{path} gives outputs of shape {_shapes(actual)}, PyTorch of {_shapes(expected)}",
            "Give a file exported from this model.",
        )

    differences = [np.abs(a - b) for a, b in zip(actual, expected, strict=True)]
    if not all(np.isfinite(each).all() for each in differences):
        place = _place(path, model, inputs, differences, tolerance)
        raise NumericsError(
            f"{name} gives NaN or infinity where PyTorch does not; {place}", "Export with --precision fp32."
        )
    parity = _measure(actual, expected, differences, len(inputs[0]))
    if not parity.relative <= tolerance:
        place = _place(path, model, inputs, differences, tolerance)
        raise CheckFailedError(
            f"{name} differs from PyTorch by {parity.relative:.2g} of its outputs (allowed: {tolerance:g}); {place}",
            "The export is wrong or its precision too low; compare with --precision fp32.",
        )
    return parity


def _outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[Array]:
    with torch.inference_mode():
        outputs = model(*(each.to(device_of(model)) for each in inputs))
    return [each.float().cpu().numpy() for each in tree_leaves(outputs) if isinstance(each, Tensor)]


def _measure(actual: list[Array], expected: list[Array], differences: list[Array], samples: int) -> Parity:
    first, right = actual[0], expected[0]
    classes = first.ndim > 1 and first.shape[1] > 1
    norms = [(float(np.linalg.norm(d)), float(np.linalg.norm(e))) for d, e in zip(differences, expected, strict=True)]
    return Parity(
        max_abs=max(float(each.max(initial=0)) for each in differences),
        mean_abs=float(np.concatenate([each.ravel() for each in differences]).mean()),
        relative=max(difference / (scale or 1.0) for difference, scale in norms),
        top1_agreement=100 * float((first.argmax(1) == right.argmax(1)).mean()) if classes else None,
        samples=samples,
    )


def _shapes(arrays: Sequence[Array]) -> str:
    return ", ".join(str(each.shape) for each in arrays)


def _place(path: Path, model: nn.Module, inputs: list[Tensor], differences: list[Array], tolerance: float) -> str:
    """Say where the file goes off, on the two samples that are worst, or why that is not known."""
    count = len(inputs[0])
    batched = [np.nan_to_num(each, nan=np.inf) for each in differences if each.shape[:1] == (count,)]
    largest = sum((each.reshape(count, -1).max(1) for each in batched), np.zeros(count))
    worst = np.resize(np.argsort(-largest, kind="stable")[:2], 2).tolist()
    chosen = [each[worst].to(device_of(model)) if len(each) == count else each for each in inputs]
    try:
        values = torch_values(model, chosen)
        fault = find_fault(path, values, [each.cpu().numpy() for each in chosen], _outputs(model, chosen), tolerance)
    except Exception as error:  # whatever tracing the model again, or running the file in parts, raises
        return f"where it goes off is not known: {first_line(error)}"
    return f"it goes off at {fault}" if fault.error > tolerance else f"its errors add up, the largest at {fault}"
