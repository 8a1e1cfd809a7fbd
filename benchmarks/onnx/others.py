"""Another tool prunes a file, in its own environment: ``python -m benchmarks.onnx.others TOOL MODEL INPUTS BATCH OUT``.

``INPUTS`` is an .npy file with the calibration inputs (N, ...). Polygraphy reads none.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

__all__ = ["prune_in_its_environment"]


def prune_in_its_environment(
    python: str | Path, tool: str, model: onnx.ModelProto, inputs: Any, batch: int
) -> onnx.ModelProto:
    """Run this module with the interpreter of the tool's environment; return the pruned model.

    Args:
        python: The interpreter.
        tool: ``polygraphy`` or ``onnxsim``.
        model: The dense model.
        inputs: Calibration inputs (N, ...), an array.
        batch: Inputs at a time.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, images, out = (Path(folder, name) for name in ("dense.onnx", "inputs.npy", "sparse.onnx"))
        onnx.save(model, source)
        np.save(images, inputs)
        command = [python, "-m", "benchmarks.onnx.others", tool, source, images, batch, out]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        return onnx.load(out)


def main() -> None:
    """Prune to 2:4 and write the model."""
    tool, source, inputs, batch, out = sys.argv[1:]
    if tool == "polygraphy":
        from polygraphy.tools import main as polygraphy  # the code of its command

        sys.argv = ["polygraphy", "surgeon", "prune", source, "-o", out]
        polygraphy()
        return
    import onnxsim

    model, images, size = onnx.load(source), np.load(inputs), int(batch)
    name = next(each.name for each in model.graph.input if each.name not in {t.name for t in model.graph.initializer})
    batches = [{name: images[start : start + size]} for start in range(0, len(images), size)]
    onnx.save(onnxsim.apply_sparsegpt_pruning(model, batches, n=2, m=4), out)


if __name__ == "__main__":
    main()
