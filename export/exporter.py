"""Exports one network in one or more precisions. Every file is audited and compared with PyTorch first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor, nn

from export.audit import AuditResult, audit_model, map_model
from export.importing import OnnxNetwork
from export.onnxruntime_session import uses_fp16
from export.parity import Parity, Reference, reference_name
from export.precision import MIN_INT8_OPSET, convertible, fp16_overflows, fp16_underflows, to_fp16
from export.writing import OPSET, TracedNetwork, staged_model
from sparsegpt_core.errors import CheckFailedError, InputError, first_line
from sparsegpt_core.network import tensors_of
from sparsegpt_core.patterns import NM, Pattern
from sparsegpt_core.progress import Progress, silent

__all__ = ["TOLERANCE", "ExportSettings", "ExportedFile", "Exporter", "Quantise", "arm_name", "trace"]

TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2, "int8": 0.3}
"""The largest usual difference of a file's outputs from PyTorch's, relative, by precision."""

_MAX_INT8_ERROR = 1.0  # above it outputs are worse than zeros: an error. Fragile networks come near to it: a warning
_MANY_UNDERFLOWS = 0.01  # of a weight's values: a warning; fewer hardly change an output


@dataclass(frozen=True)
class ExportSettings:
    """How ONNX files are written.

    Raises:
        InputError: ``io_dtype`` is neither ``fp32`` nor ``fp16``.
    """

    io_dtype: str = "fp32"
    """The type of inputs and outputs in FP16 files: ``fp32`` or ``fp16``."""
    opset: int = OPSET
    """The version of ONNX's operators."""
    fold_batch_norm: bool = True
    """Whether batch norms are folded into the convolutions before them."""
    dynamic_size: bool = False
    """Whether the height and width of images are dynamic."""
    ranges: str = "auto"
    """How the ranges of INT8 activations are chosen."""
    int8_ends: bool = False
    """Whether the first and the last layer are INT8 too."""

    def __post_init__(self) -> None:
        if self.io_dtype not in ("fp32", "fp16"):
            raise InputError(f"unknown `io_dtype` '{self.io_dtype}'", "Use fp32 or fp16.")


Quantise = Callable[[onnx.ModelProto, Mapping[str, Tensor], ExportSettings, Progress], onnx.ModelProto]
"""Turns an FP32 graph into an INT8 one. Receives the graph, the network's state dict, the settings and the progress."""


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written, and its checks."""

    path: Path
    """The file."""
    audit: AuditResult | None
    """The audit of its weights; None where the pattern is not N:M."""
    parity: Parity
    """The comparison of its outputs with PyTorch's."""
    warnings: tuple[str, ...] = ()
    """What a user should know about the file."""
    notes: tuple[str, ...] = ()
    """Details that hardly matter."""


class Exporter:
    """Exports one network with its present weights, which must not change meanwhile. It is traced once.

    Args:
        network: The network, in eval mode.
        images: Real images (N, C, H, W) for the comparison with PyTorch, or a batch of several inputs.
        metadata: What the files record about themselves, JSON-able.
        pattern: The pattern of the pruned layers.
        pruned: The names of the pruned layers.
        settings: How the files are written.
        quantise: Turns the FP32 graph into an INT8 one. Only INT8 files need it.
        progress: Receives the progress of the INT8 calibration.
        traced: What :func:`trace` returned for this network with any weights; None to trace it here. A network from an
            ONNX file needs none.

    Raises:
        ModelError: torch.onnx cannot trace the network.
        CheckFailedError: A pruned layer does not have its pattern in the graph.

    Example:
        >>> import torch
        >>> network = nn.Conv2d(4, 4, 1).eval()
        >>> _ = network.weight.data[:, 2:].zero_()
        >>> exporter = Exporter(network, torch.randn(2, 4, 8, 8), {}, NM(2, 4), [])
        >>> file = exporter.write(Path("conv.fp16.onnx"), "fp16")
        >>> file.audit.sparse_layers, file.parity.relative < 0.01
        (1, True)
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        metadata: dict[str, Any],
        pattern: Pattern,
        pruned: Iterable[str],
        settings: ExportSettings | None = None,
        quantise: Quantise | None = None,
        progress: Progress = silent,
        traced: TracedNetwork | None = None,
    ) -> None:
        self._network, self._images = network, images
        self._reference = Reference(network, tensors_of(images))
        self._pattern, self._pruned = pattern, list(pruned)
        self._settings, self._quantise = settings or ExportSettings(), quantise
        self._progress = progress
        self._is_imported = isinstance(network, OnnxNetwork)
        self._graph: Callable[[], onnx.ModelProto]
        if isinstance(network, OnnxNetwork):  # written again for each precision: it may be as large as the memory
            self._graph = partial(network.to_onnx, metadata)
        else:
            traced = traced or trace(network, images, self._settings)
            graph = traced.to_onnx(network.state_dict(), metadata)
            self._graph = lambda: graph
        fp32 = self._graph()
        self._fp32_audit = self._audit(fp32, "FP32")
        self._uses_fp16 = uses_fp16(fp32)
        self._is_half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in fp32.graph.initializer)

    def graph(self) -> onnx.ModelProto:
        """Return the FP32 graph, which is not compared with PyTorch."""
        return self._graph()

    def write(self, path: Path, precision: str = "fp32") -> ExportedFile:
        """Write one file.

        Args:
            path: The file to write.
            precision: ``fp32``, ``fp16`` or ``int8``.

        Raises:
            CheckFailedError: A pruned layer lost its pattern, or the outputs differ from PyTorch's.
            NumericsError: A weight is NaN or infinite.
            InputError: The precision is INT8, and the exporter has no ``quantise``.
        """
        audit, warnings, notes = self._fp32_audit, list[str](), list[str]()
        reference, half = reference_name(self._network), self._uses_fp16
        # The file appears at its path after it has passed the checks. Nothing holds the graph meanwhile.
        with staged_model(self._converted(path.name, precision, warnings, notes), path) as staged:
            if precision != "fp32":
                written = map_model(staged)
                audit = self._audit(written, f"{path.name} ({precision.upper()})", audit)
                half = uses_fp16(written)
                del written
            if not self._is_imported:  # others' files break rules that no runtime needs
                _check_onnx(staged, path.name)
            usual = TOLERANCE["fp16" if precision == "fp32" and self._is_half else precision]
            allowed = _MAX_INT8_ERROR if precision == "int8" else usual
            parity = self._reference.check(staged, allowed, path.name, usual, half)
        if parity.relative > usual:
            warnings.append(
                f"{path.name} differs from {reference} by {parity.relative:.2g} of its outputs: INT8 is too coarse for "
                "this network. Compare its accuracy with FP16"
            )
        if not parity.outputs_vary:
            warnings.append(
                f"{path.name}: {reference}'s outputs do not depend on the images, so the comparison proves nothing: "
                "load trained weights"
            )
        warnings += [
            f"{path.name}: half of the channels of {output} differ from {reference} by more than {errors.median:.2g} "
            f"of themselves, which larger channels hide (allowed: {usual:g}): compare a metric"
            for output, errors in parity.channel_errors.items()
            if errors.median > usual
        ]
        return ExportedFile(path, audit, parity, tuple(warnings), tuple(notes))

    def _audit(self, model: onnx.ModelProto, stage: str, before: AuditResult | None = None) -> AuditResult | None:
        if not isinstance(self._pattern, NM):
            return None
        audit = audit_model(model, self._pattern, name=stage)
        audit.require_sparse(self._pruned, stage, before)
        return audit

    def _converted(self, name: str, precision: str, warnings: list[str], notes: list[str]) -> onnx.ModelProto:
        if precision == "fp16" and not self._is_half:
            return self._fp16(name, warnings, notes)
        return self._int8() if precision == "int8" else self._graph()

    def _fp16(self, name: str, warnings: list[str], notes: list[str]) -> onnx.ModelProto:
        model = self._convertible()
        overflows = fp16_overflows(model, tensors_of(self._images))
        if overflows:
            first, largest = next(iter(overflows.items()))
            warnings.append(
                f"{name}: {len(overflows)} nodes stay in FP32 because values exceed FP16's range; "
                f"{first} reads or computes {largest:.3g}"
            )
        if underflows := fp16_underflows(model):
            count = sum(underflow.values for underflow in underflows.values())
            text = f"{name}: {count} weights underflow FP16; they were set to ±6e-8 so that they stay non-zero"
            layer, worst = max(underflows.items(), key=lambda item: item[1].share)
            if worst.share < _MANY_UNDERFLOWS:
                notes.append(text)
            else:
                warnings.append(f"{text}. They are {100 * worst.share:.0f} % of {layer}: compare the FP16 accuracy")
        return to_fp16(model, self._settings.io_dtype, overflows, in_place=self._is_imported)

    def _convertible(self, opset: int = 0) -> onnx.ModelProto:
        """Return the FP32 graph, one of another tool as this program's conversions need it."""
        return convertible(self._graph(), opset) if self._is_imported else self._graph()

    def _int8(self) -> onnx.ModelProto:
        if self._quantise is None:
            raise InputError("INT8 needs images for the ranges of activations", "Give `data`.")
        model = self._convertible(MIN_INT8_OPSET)
        return self._quantise(model, self._network.state_dict(), self._settings, self._progress)


def trace(network: nn.Module, images: Tensor, settings: ExportSettings) -> TracedNetwork:
    """Trace a PyTorch network once for several exporters, one for each set of weights.

    Args:
        network: The network, in eval mode.
        images: Images (N, C, H, W), or a batch of several inputs.
        settings: How the files will be written.

    Raises:
        ModelError: torch.onnx cannot trace the network.
    """
    return TracedNetwork(
        network,
        _examples(images),
        dynamic_size=settings.dynamic_size,
        fold_batch_norm=settings.fold_batch_norm,
        opset=settings.opset,
    )


def _examples(images: Tensor) -> tuple[int, int, int] | tuple[Tensor, ...]:
    """Return the shape of an image, or an example of every input of another kind."""
    if isinstance(images, Tensor) and images.ndim == 4:
        return images.shape[1], images.shape[2], images.shape[3]
    return tensors_of(images[:1])


def _check_onnx(path: Path, name: str) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailedError(
            f"{name} is not valid ONNX: {first_line(error)}", "This is a bug; please report it."
        ) from error


def arm_name(name: str, precision: str) -> str:
    """Return the name of a network in a precision, as files and reports use it.

    Example:
        >>> arm_name("sparse", "fp32"), arm_name("sparse", "fp16")
        ('sparse', 'sparse.fp16')
    """
    return name if precision == "fp32" else f"{name}.{precision}"
