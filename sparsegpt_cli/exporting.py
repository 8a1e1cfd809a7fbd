"""Export a model in one or more precisions; every file is audited and compared with PyTorch before it counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from export.audit import AuditResult, audit_model
from export.onnx_writer import export_model, save_model
from export.parity import Parity, check_parity
from export.precision import check_fp16_range, to_fp16
from sparsegpt_core.artifacts import atomic_path
from sparsegpt_core.patterns import NM, Pattern

__all__ = ["TOLERANCE", "ExportedFile", "Exporter"]

TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2}
"""Relative difference of logits from PyTorch's that a file may have."""


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written, its audit (None without an N:M pattern) and its parity with PyTorch."""

    path: Path
    audit: AuditResult | None
    parity: Parity


class Exporter:
    """Exports one model; the trace is made once for all precisions.

    Args:
        model: In eval mode.
        images: Real samples (N, C, H, W) for the comparison with PyTorch.
        metadata: What to note in the files.
        pattern: What the pruned layers must obey in the files.
        pruned: Names of the pruned layers.
    """

    def __init__(
        self, model: nn.Module, images: Tensor, metadata: dict[str, Any], pattern: Pattern, pruned: Iterable[str]
    ) -> None:
        self._model, self._images = model, images
        self._pattern, self._pruned = pattern, list(pruned)
        self._fp32 = export_model(model, (images.shape[1], images.shape[2], images.shape[3]), metadata)

    def write(self, path: Path, precision: str = "fp32") -> ExportedFile:
        """Write one file.

        Args:
            path: Where to.
            precision: ``fp32`` or ``fp16``.

        Raises:
            CheckFailedError: A pruned layer lost its pattern, or the outputs are not PyTorch's.
            NumericsError: A value lies beyond FP16's range.
        """
        proto = self._fp32
        if precision == "fp16":
            check_fp16_range(self._model, self._images)
            proto = to_fp16(proto)
        audit = None
        if isinstance(self._pattern, NM):
            audit = audit_model(proto, self._pattern, name=path.name)
            audit.require_sparse(self._pruned, f"{path.name} ({precision})")
        with atomic_path(path) as temporary:  # the path is taken once the file has proved itself
            save_model(proto, temporary)
            parity = check_parity(temporary, self._model, self._images, TOLERANCE[precision], path.name)
        return ExportedFile(path, audit, parity)
