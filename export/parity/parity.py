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

from export.execution import FEW_SAMPLES, CpuSession, first_samples
from export.importing import OnnxNetwork
from export.parity.fault_finder import find_fault, torch_values
from sparsegpt_core.channel_errors import ChannelErrors, channel_energies, errors_by_channel
from sparsegpt_core.errors import CheckFailedError, ModelError, NumericsError, first_line
from sparsegpt_core.execution import device_of, full_precision

__all__ = ["Parity", "Reference", "check_parity", "reference_name"]

Array = npt.NDArray[Any]

_ROUNDING = 1e-6  # relative; a batch is not computed in the same order as one sample


_FAR = 1 / 8  # of the usual difference: below it on a few samples, all samples stay below the usual one
_AGREEMENT = 99.0  # percent of a few samples' classes, or of their pixels'


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
    return Reference(network, images).check(path, tolerance, name)


class Reference:
    """A network with samples, which files are compared with.

    Its outputs on a few samples are computed once for all files. They must not change meanwhile.

    Args:
        network: As for :func:`check_parity`.
        images: As for :func:`check_parity`.

    Example:
        >>> from export.writing import export_model, save_model
        >>> network = nn.Conv2d(1, 2, 3).eval()
        >>> save_model(export_model(network, (1, 8, 8)), Path("conv.onnx"))
        >>> reference = Reference(network, torch.rand(32, 1, 8, 8))
        >>> reference.check(Path("conv.onnx")).samples, reference.check(Path("conv.onnx"), usual=1e-3).samples
        (32, 4)
    """

    def __init__(self, network: nn.Module, images: Tensor | Sequence[Tensor]) -> None:
        self._network = network
        self._inputs = [images] if isinstance(images, Tensor) else list(images)
        self._few = first_samples(self._inputs, FEW_SAMPLES)
        self._outputs_of_few: list[Array] | None = None

    def check(
        self,
        path: Path,
        tolerance: float = 1e-3,
        name: str = "",
        usual: float | None = None,
        half: bool | None = None,
    ) -> Parity:
        """Compare a file with the network, as :func:`check_parity` does.

        Args:
            path: The ONNX file.
            tolerance: The largest ``relative`` difference allowed.
            name: The file's name in messages; by default its own name.
            usual: Compare the first four samples alone if their differences are far from this one: an eighth of it.
                None compares all samples.
            half: Whether a value of the file is FP16, if the caller knows it; else the file is read once more.

        Raises:
            CheckFailedError: As for :func:`check_parity`.
            NumericsError: As for :func:`check_parity`.
            ModelError: As for :func:`check_parity`.
        """
        name = name or path.name
        session = CpuSession(path, name, half=half)
        if usual is not None and len(self._inputs[0]) > FEW_SAMPLES:
            if self._outputs_of_few is None:
                self._outputs_of_few = self._outputs(self._few)
            _, few = self._compare(session, name, self._few, self._outputs_of_few)
            if few and _is_clear(few, _FAR * usual):
                return few
        inputs, reference = self._inputs, reference_name(self._network)
        differences, parity = self._compare(session, name, inputs, self._outputs(inputs))
        if parity is None:
            place = _place(path, self._network, inputs, differences, tolerance)
            raise NumericsError(
                f"{name} computes NaN or infinity where {reference} does not; {place}", "Export with `precision=fp32`."
            )
        if not parity.relative <= tolerance:
            place = _place(path, self._network, inputs, differences, tolerance)
            raise CheckFailedError(
                f"{name} differs from {reference} by {parity.relative:.2g} of its outputs (allowed: {tolerance:g}); "
                f"{place}",
                "The export is wrong or its precision too low. Compare with `precision=fp32`.",
            )
        return parity

    def _outputs(self, inputs: Sequence[Tensor]) -> list[Array]:
        outputs = _outputs(self._network, inputs)
        if not all(np.isfinite(each).all() for each in outputs):
            raise NumericsError(
                f"{reference_name(self._network)}'s outputs are not finite", "Check its weights, and `mean` and `std`."
            )
        return outputs

    def _compare(
        self, session: CpuSession, name: str, inputs: Sequence[Tensor], expected: list[Array]
    ) -> tuple[list[Array], Parity | None]:
        """Return the differences of each output, and the comparison; None where a difference is not finite."""
        arrays = [each.cpu().numpy() for each in inputs]
        actual = [each.astype(np.float32) for each in session.run(arrays)]
        if [each.shape for each in actual] != [each.shape for each in expected]:
            raise ModelError(
                f"{name} has outputs of shape {_shapes(actual)}, "
                f"{reference_name(self._network)} of {_shapes(expected)}",
                "Give a file exported from this model.",
            )
        differences = [np.abs(a - b) for a, b in zip(actual, expected, strict=True)]
        if not all(np.isfinite(each).all() for each in differences):
            return differences, None
        return differences, _measure(actual, expected, differences, arrays, session.outputs)


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


def _is_clear(parity: Parity, limit: float) -> bool:
    """Return whether nothing of a comparison on a few samples calls for the others."""
    errors = (parity.relative, *(each.median for each in parity.channel_errors.values()))
    agrees = parity.top1_agreement is None or parity.top1_agreement >= _AGREEMENT
    return max(errors) <= limit and agrees and parity.outputs_vary


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
