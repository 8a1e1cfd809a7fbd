"""What a benchmark on engines will build, and whether the engines of all rebuilds fit into the GPU's memory."""

from __future__ import annotations

__all__ = ["Cost", "estimate_cost"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional

from deploy.benchmark.arms import ARMS
from deploy.graph import Graph, estimate_memory

_MARGIN = 2  # for the workspace of kernels, their code and CUDA's own memory, which the estimate leaves out
_BYTES_PER_MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """The engines of a benchmark and their memory."""

    rebuilds: int
    """Builds of each engine."""
    batches: int
    """Batches, each with its own engines."""
    engine_bytes: int
    """Estimated GPU memory of one engine, at the batch that needs most: see :func:`~deploy.graph.estimate_memory`."""
    free_bytes: Optional[int]
    """Free GPU memory before the first build; None where it is unknown."""

    @property
    def engines(self) -> int:
        """The number of engines to build."""
        return len(ARMS) * self.rebuilds * self.batches

    @property
    def needed_bytes(self) -> int:
        """Estimated GPU memory of all engines of one batch."""
        return len(ARMS) * self.rebuilds * self.engine_bytes

    @property
    def fits(self) -> bool:
        """Whether twice the estimate is free, so that all engines of one batch can be open together."""
        return self.free_bytes is None or _MARGIN * self.needed_bytes <= self.free_bytes

    @property
    def parts(self) -> List[List[int]]:
        """The rebuilds, from 0, that are open and timed together. Rebuild 0 is in the last part."""
        rebuilds = list(range(self.rebuilds))
        return [rebuilds] if self.fits else [[rebuild] for rebuild in reversed(rebuilds)]

    def __str__(self) -> str:
        """Return a sentence for the user."""
        batches = f", {self.batches} batches" if self.batches > 1 else ""
        free = "unknown" if self.free_bytes is None else _mib(self.free_bytes)
        text = (
            f"{self.engines} engines to build ({len(ARMS)} arms, {self.rebuilds} rebuilds{batches}); estimated GPU "
            f"memory of all rebuilds, without workspace: {_mib(self.needed_bytes)}; free: {free}"
        )
        if self.free_bytes is None or self.fits:
            return text
        if self.rebuilds > 1:
            text += "; so rebuilds are timed one after another"
        is_short = len(ARMS) * self.engine_bytes > self.free_bytes
        return f"{text}; one rebuild may not fit: use a smaller batch" if is_short else text

    def to_json(self) -> Dict[str, Any]:
        """Return the fields and the properties as ``benchmark --json`` prints them."""
        return {
            **asdict(self),
            "engines": self.engines,
            "needed_bytes": self.needed_bytes,
            "rebuilds_together": len(self.parts[-1]),
        }


def estimate_cost(
    graph: Graph,
    shapes: Sequence[Mapping[str, Sequence[int]]],
    rebuilds: int,
    streams: int = 1,
    free_bytes: Optional[int] = None,
) -> Cost:
    """Estimate what a benchmark costs.

    Args:
        graph: The graph of either file.
        shapes: For each batch, the largest shape of each input that its engines take.
        rebuilds: Builds of each engine.
        streams: Inferences at the same time, each in its own execution context.
        free_bytes: Free GPU memory; None where it is unknown.

    Raises:
        ModelError: The graph's shapes cannot be inferred.

    Example:
        >>> import onnx
        >>> from pathlib import Path
        >>> from deploy.graph import OnnxFile
        >>> model = onnx.parser.parse_model('''<ir_version: 8, opset_import: ["": 17]>
        ...     g (float16[N, 2] x) => (float16[N, 1] y) <float16[2, 1] w = {1, 0}> { y = MatMul(x, w) }''')
        >>> onnx.save(model, "model.onnx")
        >>> cost = estimate_cost(OnnxFile(Path("model.onnx")).graph, [{"x": (8, 2)}], rebuilds=3, free_bytes=800)
        >>> cost.engines, cost.engine_bytes, cost.parts  # 2 weights, 16 inputs, 8 outputs of 2 bytes
        (9, 52, [[2], [1], [0]])
    """
    found = [estimate_memory(graph.model, each) for each in shapes]
    engine_bytes = max(each.weights + streams * each.context for each in found)
    return Cost(rebuilds, len(shapes), engine_bytes, free_bytes)


def _mib(count: int) -> str:
    return f"{count / _BYTES_PER_MIB:,.0f} MiB"
