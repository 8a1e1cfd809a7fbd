"""Compares an ONNX file's outputs with PyTorch's on real samples, and names the node where an error begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from export.execution import CpuSession
from export.importing import OnnxNetwork
from export.parity.fault_finder import find_fault, torch_values
from sparsegpt_core.channel_errors import ChannelErrors, channel_energies, errors_by_channel
from sparsegpt_core.errors import CheckFailedError, ModelError, NumericsError, first_line
from sparsegpt_core.execution import device_of, full_precision

__all__ = ["Parity", "check_parity", "reference_name"]

Array = npt.NDArray[Any]

_ROUNDING = 1e-6  # relative; a batch is not computed in the same order as one sample


@dataclass(frozen=True)
class Parity:
    """Differences between the outputs of ONNX Runtime and PyTorch."""

    max_abs: float
    """The largest absolute difference over all outputs."""
    mean_abs: float
    """The mean absolute difference over all outputs."""
    relative: float
    """‖difference‖ / ‖PyTorch's output‖, the largest over the outputs."""
    top1_agreement: float | None
    """Samples (for maps, pixels) with the same class in the first output, in percent; None without classes."""
    samples: int
    """The number of samples."""
    outputs_vary: bool
    """Whether PyTorch's outputs differ between samples and are not all zero. If not, the comparison proves nothing."""
    channel_errors: Mapping[str, ChannelErrors]
    """The relative errors of the channels of each output of three axes or more. They are not judged: a channel of
    nearly zero has a large one in a good file."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return asdict(self)


def check_parity(
    path: Path, network: nn.Module, images: Tensor | Sequence[Tensor], tolerance: float = 1e-3, name: str = ""
) -> Parity:
    """Run an ONNX file and its PyTorch network on the same images and compare their outputs.

    ONNX Runtime's CPU kernels compute most of an FP16 graph in FP32. The comparison shows the error of rounded weights,
    but not whether a value between the layers would overflow FP16. PyTorch computes without TF32.

    Args:
        path: The ONNX file.
        network: The network that it was exported from, in eval mode.
        images: Normalised images (N, C, H, W), or one tensor for each of several inputs.
        tolerance: The largest ``relative`` difference allowed. FP32 kernels differ by about 1e-6.
        name: The file's name in messages; by default its own name.

    Raises:
        CheckFailedError: The outputs differ by more than the tolerance; names the node where the error begins.
        NumericsError: An output is NaN or infinite; names the node where the error begins.
        ModelError: ONNX Runtime cannot run the file, or it was exported from another network.

    Example:
        >>> from export.writing import export_model, save_model
        >>> network = nn.Conv2d(1, 2, 3).eval()
        >>> save_model(export_model(network, (1, 8, 8)), Path("conv.onnx"))
        >>> check_parity(Path("conv.onnx"), network, torch.ones(4, 1, 8, 8)).relative < 1e-5
        True
    """
    inputs = [images] if isinstance(images, Tensor) else list(images)
    name, reference = name or path.name, reference_name(network)
    expected = _outputs(network, inputs)
    if not all(np.isfinite(each).all() for each in expected):
        raise NumericsError(f"{reference}'s outputs are not finite", "Check its weights, and `mean` and `std`.")
    session = CpuSession(path, name)
    actual = [each.astype(np.float32) for each in session.run([each.cpu().numpy() for each in inputs])]
    if [each.shape for each in actual] != [each.shape for each in expected]:
        raise ModelError(
            f"{name} has outputs of shape {_shapes(actual)}, {reference} of {_shapes(expected)}",
            "Give a file exported from this model.",
        )

    differences = [np.abs(a - b) for a, b in zip(actual, expected, strict=True)]
    if not all(np.isfinite(each).all() for each in differences):
        place = _place(path, network, inputs, differences, tolerance)
        raise NumericsError(
            f"{name} computes NaN or infinity where {reference} does not; {place}", "Export with `precision=fp32`."
        )
    parity = _measure(actual, expected, differences, [each.cpu().numpy() for each in inputs], session.outputs)
    if not parity.relative <= tolerance:
        place = _place(path, network, inputs, differences, tolerance)
        raise CheckFailedError(
            f"{name} differs from {reference} by {parity.relative:.2g} of its outputs (allowed: {tolerance:g}); "
            f"{place}",
            "The export is wrong or its precision too low. Compare with `precision=fp32`.",
        )
    return parity


def reference_name(network: nn.Module) -> str:
    """Return what messages call the network that a file is compared with.

    Example:
        >>> reference_name(nn.ReLU())
        'PyTorch'
    """
    return "the imported network" if isinstance(network, OnnxNetwork) else "PyTorch"


def _outputs(network: nn.Module, inputs: Sequence[Tensor]) -> list[Array]:
    with torch.inference_mode(), full_precision(tf32=False):
        outputs = network(*(each.to(device_of(network)) for each in inputs))
    return [each.float().cpu().numpy() for each in tree_leaves(outputs) if isinstance(each, Tensor)]


def _measure(
    actual: list[Array],
    expected: list[Array],
    differences: list[Array],
    inputs: Sequence[Array],
    names: Sequence[str],
) -> Parity:
    first, right = actual[0], expected[0]
    classes = first.ndim > 1 and first.shape[1] > 1
    norms = [(float(np.linalg.norm(d)), float(np.linalg.norm(e))) for d, e in zip(differences, expected, strict=True)]
    energies = [(channel_energies(d), channel_energies(e)) for d, e in zip(differences, expected, strict=True)]
    channels = {name: errors_by_channel(*both) for name, both in zip(names, energies, strict=True)}
    return Parity(
        max_abs=max(float(each.max(initial=0)) for each in differences),
        mean_abs=float(np.concatenate([each.ravel() for each in differences]).mean()),
        relative=max(difference / (scale or 1.0) for difference, scale in norms),
        top1_agreement=100 * float((first.argmax(1) == right.argmax(1)).mean()) if classes else None,
        samples=len(inputs[0]),
        outputs_vary=any(each.any() for each in expected) and (_vary(expected) or not _vary(inputs)),
        channel_errors={name: found for name, found in channels.items() if found},
    )


def _vary(arrays: Sequence[Array]) -> bool:
    """Return whether an array differs between samples by more than rounding."""
    return any(each.ndim > 0 and not np.allclose(each, each[:1], rtol=_ROUNDING, atol=0) for each in arrays)


def _shapes(arrays: Sequence[Array]) -> str:
    return ", ".join(str(each.shape) for each in arrays)


def _place(path: Path, network: nn.Module, inputs: list[Tensor], differences: list[Array], tolerance: float) -> str:
    """Say where the error begins, on the two samples with the largest differences, or why that is not known."""
    count = len(inputs[0])
    batched = [np.nan_to_num(each, nan=np.inf) for each in differences if each.shape[:1] == (count,)]
    largest = sum((each.reshape(count, -1).max(1) for each in batched), np.zeros(count))
    worst = np.resize(np.argsort(-largest, kind="stable")[:2], 2).tolist()
    chosen = [each[worst].to(device_of(network)) if len(each) == count else each for each in inputs]
    try:
        values = torch_values(network, chosen)
        fault = find_fault(path, values, [each.cpu().numpy() for each in chosen], _outputs(network, chosen), tolerance)
    except Exception as error:  # tracing the network again and running the file in parts may raise any class
        return f"the node where the error begins is not known: {first_line(error)}"
    if fault.error > tolerance:
        return f"the error begins at {fault}"
    return f"the errors of many nodes add up, the largest at {fault}"
