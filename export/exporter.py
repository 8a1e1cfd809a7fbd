"""Export a model in one or more precisions; every file is audited and compared with PyTorch before it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor, nn

from export.audit import AuditResult, audit_model
from export.parity import Parity, check_parity
from export.precision import fp16_overflows, fp16_underflows, to_fp16
from export.writing import OPSET, export_model, staged_model
from sparsegpt_core.errors import CheckFailedError, InputError, first_line
from sparsegpt_core.patterns import NM, Pattern
from sparsegpt_core.progress import Progress, silent

__all__ = ["TOLERANCE", "ExportSettings", "ExportedFile", "Exporter", "Quantise", "arm_name"]

TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2, "int8": 0.3}
"""Relative difference of logits from PyTorch's that a file may have."""


@dataclass(frozen=True)
class ExportSettings:
    """How ONNX files are written.

    ``io_dtype`` is what FP16 files take and give; ``dynamic_size`` leaves height and width open; ``ranges`` is how
    those of INT8 activations are chosen; with ``int8_ends`` the first and the last layer are INT8 too.

    Raises:
        InputError: ``io_dtype`` is neither ``fp32`` nor ``fp16``.
    """

    io_dtype: str = "fp32"
    opset: int = OPSET
    fold_batch_norm: bool = True
    dynamic_size: bool = False
    ranges: str = "auto"
    int8_ends: bool = False

    def __post_init__(self) -> None:
        if self.io_dtype not in ("fp32", "fp16"):
            raise InputError(f"unknown --io-dtype '{self.io_dtype}'", "Use fp32 or fp16.")


Quantise = Callable[[onnx.ModelProto, Mapping[str, Tensor], ExportSettings, Progress], onnx.ModelProto]
"""Turns an FP32 graph into an INT8 one. It gets the graph, the model's parameters by name, and the settings."""


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written, its audit (None without an N:M pattern), its parity with PyTorch, and what to know."""

    path: Path
    audit: AuditResult | None
    parity: Parity
    warnings: tuple[str, ...] = ()


class Exporter:
    """Exports one model; the trace is made once for all precisions.

    Args:
        model: In eval mode.
        images: Real samples (N, C, H, W) for the comparison with PyTorch.
        metadata: What to note in the files.
        pattern: What the pruned layers must obey in the files.
        pruned: Names of the pruned layers.
        settings: How to write.
        quantise: Turns the FP32 graph into an INT8 one; INT8 needs it.
        progress: Told of the calibration of ranges.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        metadata: dict[str, Any],
        pattern: Pattern,
        pruned: Iterable[str],
        settings: ExportSettings | None = None,
        quantise: Quantise | None = None,
        progress: Progress = silent,
    ) -> None:
        self._model, self._images = model, images
        self._pattern, self._pruned = pattern, list(pruned)
        self._settings, self._quantise = settings or ExportSettings(), quantise
        self._progress = progress
        self._fp32 = export_model(
            model,
            (images.shape[1], images.shape[2], images.shape[3]),
            metadata,
            dynamic_size=self._settings.dynamic_size,
            fold_batch_norm=self._settings.fold_batch_norm,
            opset=self._settings.opset,
        )
        self._fp32_audit = self._audit(self._fp32, "FP32")

    def write(self, path: Path, precision: str = "fp32") -> ExportedFile:
        """Write one file.

        Args:
            path: Where to.
            precision: ``fp32``, ``fp16`` or ``int8``.

        Raises:
            CheckFailedError: A pruned layer lost its pattern, or the outputs are not PyTorch's.
            NumericsError: A weight is NaN or infinite.
            InputError: INT8 is asked for without ``quantise``.
        """
        proto, audit, warnings = self._fp32, self._fp32_audit, list[str]()
        if precision == "fp16":
            proto = self._fp16(path.name, warnings)
        elif precision == "int8":
            proto = self._int8()
        if precision != "fp32":
            audit = self._audit(proto, f"{path.name} ({precision.upper()})", audit)
        with staged_model(proto, path) as staged:  # the path is taken once the file has proved itself
            _check(staged, path.name)
            parity = check_parity(staged, self._model, self._images, TOLERANCE[precision], path.name)
        return ExportedFile(path, audit, parity, tuple(warnings))

    def _audit(self, proto: onnx.ModelProto, stage: str, before: AuditResult | None = None) -> AuditResult | None:
        if not isinstance(self._pattern, NM):
            return None
        audit = audit_model(proto, self._pattern, name=stage)
        audit.require_sparse(self._pruned, stage, before)
        return audit

    def _fp16(self, name: str, warnings: list[str]) -> onnx.ModelProto:
        loud = fp16_overflows(self._fp32, [self._images])
        if loud:
            first, largest = next(iter(loud.items()))
            warnings.append(
                f"{name}: {len(loud)} nodes stay in FP32, as values leave FP16's range; {first} meets {largest:.3g}"
            )
        if small := fp16_underflows(self._fp32):
            warnings.append(f"{name}: {sum(small.values())} weights too small for FP16 became its least, 6e-8")
        return to_fp16(self._fp32, self._settings.io_dtype, loud)

    def _int8(self) -> onnx.ModelProto:
        if self._quantise is None:
            raise InputError("INT8 needs images for the ranges of activations", "Give --data.")
        return self._quantise(self._fp32, self._model.state_dict(), self._settings, self._progress)


def _check(path: Path, name: str) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailedError(
            f"{name} is no valid ONNX: {first_line(error)}", "This is a bug; please report it."
        ) from error


def arm_name(name: str, precision: str) -> str:
    """Return ``sparse``, ``sparse.fp16``, ...: what files and reports call a network in a precision."""
    return name if precision == "fp32" else f"{name}.{precision}"
