"""An ONNX file as one value: its graph, hash and audit are each computed once."""

from __future__ import annotations

__all__ = ["OnnxFile"]

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Union

from deploy.graph.onnx_graph import Graph, read_graph
from sparsegpt_core.files import sha256
from sparsegpt_core.patterns import NM

if TYPE_CHECKING:
    from export.audit import AuditResult


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file. Each property is computed on its first use and kept.

    A benchmark passes one ``OnnxFile`` to all of its builds, so it reads, hashes and audits the file once.

    Example:
        >>> import onnx
        >>> model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y)'
        ...                                 '{ y = Relu(x) }')
        >>> onnx.save(model, "relu.onnx")
        >>> file = OnnxFile(Path("relu.onnx"))
        >>> dict(file.graph.inputs), file.audit.eligible_layers, len(file.sha256)
        ({'x': (None,)}, 0, 64)
    """

    path: Path
    """The file."""

    @classmethod
    def of(cls, model: Union[Path, OnnxFile]) -> OnnxFile:
        """Return the file at a path, or the given ``OnnxFile`` itself."""
        return model if isinstance(model, OnnxFile) else cls(model)

    @cached_property
    def graph(self) -> Graph:
        """The graph.

        Raises:
            InputError: The file is missing, damaged or empty, or is not an ONNX model.
            MissingDependencyError: onnx is not installed.
        """
        return read_graph(self.path)

    @cached_property
    def sha256(self) -> str:
        """The file's SHA-256, without its external data.

        Raises:
            InputError: The file is missing or unreadable.
        """
        return sha256(self.path)

    @cached_property
    def audit(self) -> AuditResult:
        """The audit against 2:4, the pattern that sparse tensor cores run.

        Raises:
            InputError: The file is missing, damaged or empty, or is not an ONNX model.
            MissingDependencyError: onnx is not installed.
        """
        model = self.graph.model
        from export.audit import audit_model

        return audit_model(model, NM(2, 4), str(self.path))
