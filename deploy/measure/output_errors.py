"""Measures the relative errors of outputs that are not logits but maps or features."""

from __future__ import annotations

__all__ = ["Outputs", "OutputsReport", "compare_outputs", "gives_logits"]

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
import numpy.typing as npt

from deploy.measure.accuracy import LabelledImages
from sparsegpt_core.errors import InputError, NumericsError
from sparsegpt_core.progress import Progress, silent

Outputs = Callable[[npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]
"""A function from images (N, C, H, W) to all outputs by name, each of any shape."""


@dataclass(frozen=True)
class OutputsReport:
    """The output errors of all versions except the reference."""

    relative_errors: Mapping[str, Mapping[str, float]]
    """‖reference − output‖ / ‖reference‖ over all samples, by version and by output."""
    samples: int
    """Number of images."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return asdict(self)


def compare_outputs(
    sessions: Mapping[str, Outputs],
    batches: Iterable[LabelledImages],
    reference: str = "dense",
    progress: Progress = silent,
    total: int = 0,
) -> OutputsReport:
    """Run all versions on the same batches. Labels are ignored.

    Args:
        sessions: The versions by name, including the reference.
        batches: Images with labels or None.
        reference: The name of the version to compare with.
        progress: Receives the stage ``outputs``, once per batch.
        total: The number of batches, for progress; 0 if unknown.

    Raises:
        InputError: The reference is not among the sessions, there are no samples, or outputs do not match.
        NumericsError: Outputs contain NaN or infinity.

    Example:
        >>> sessions = {"dense": lambda x: {"map": x}, "sparse": lambda x: {"map": 0.75 * x}}
        >>> compare_outputs(sessions, [(np.ones((2, 3, 4, 4)), None)]).relative_errors
        {'sparse': {'map': 0.25}}
    """
    if reference not in sessions:
        raise InputError(f"'{reference}' is not among {', '.join(sessions)}", "Name the reference to compare with.")
    energies: Dict[str, float] = {}
    errors: Dict[str, Dict[str, float]] = {name: {} for name in sessions if name != reference}
    samples = 0
    progress("outputs", 0, total)
    for done, (images, _) in enumerate(batches, start=1):
        expected = _checked(reference, sessions[reference](images))
        for output, value in expected.items():
            energies[output] = energies.get(output, 0.0) + _energy(value)
        for name, sums in errors.items():
            found = _checked(name, sessions[name](images))
            if {key: value.shape for key, value in found.items()} != {k: v.shape for k, v in expected.items()}:
                raise InputError(f"'{name}' and '{reference}' have different outputs", "Give versions of one model.")
            for output, value in found.items():
                sums[output] = sums.get(output, 0.0) + _energy(value - expected[output])
        samples += len(images)
        progress("outputs", done, total)
    if not samples:
        raise InputError("there are no samples to compare on", "Give evaluation data.")
    relative = {
        name: {output: math.sqrt(error / (energies[output] or 1.0)) for output, error in sums.items()}
        for name, sums in errors.items()
    }
    return OutputsReport(relative, samples)


def gives_logits(path: Path) -> bool:
    """Return whether the first output of an ONNX file is (N, classes).

    Raises:
        InputError: The file cannot be read.

    Example:
        >>> import onnx
        >>> onnx.save(onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]> g (float[N, 8] x) => (float[N, 8] y) { y = Relu(x) }'''),
        ...     "relu.onnx")
        >>> gives_logits(Path("relu.onnx"))
        True
    """
    from export.audit import load_model

    first = load_model(path).graph.output[0]
    return len(first.type.tensor_type.shape.dim) == 2


def _checked(name: str, outputs: Mapping[str, npt.NDArray[Any]]) -> Dict[str, npt.NDArray[np.float64]]:
    for output, value in outputs.items():
        if not np.isfinite(value).all():
            raise NumericsError(
                f"output {output} of '{name}' contains NaN or infinity", "Export in FP32, or check the weights."
            )
    return {output: value.astype(np.float64) for output, value in outputs.items()}


def _energy(value: npt.NDArray[np.float64]) -> float:
    return float(np.square(value).sum())
