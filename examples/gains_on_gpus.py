"""Estimate what 2:4 gains a network on each GPU, for small and large batches, and draw it. Needs no GPU.

python gains_on_gpus.py MODEL.onnx [PICTURE.png]

The weights do not matter, only their shapes: `torchvision.models.resnet50()` is enough for its picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

import sparsegpt_trt as st

GPUS = ("orin-nano", "orin-agx", "l4", "a10", "rtx4090", "l40s", "a100", "h100")
BATCHES = {1: "#0072b2", 8: "#e69f00", 64: "#009e73"}
"""Images in one inference, and the colour of their bars."""


def main(model: Path, picture: Path) -> None:
    """Print a table and write the picture."""
    gains = {
        (gpu, batch): st.predict(model, (batch, batch, batch), gpu).bound or 1.0 for gpu in GPUS for batch in BATCHES
    }
    print("GPU       " + "".join(f"batch {batch:<5}" for batch in BATCHES))
    for gpu in GPUS:
        print(f"{gpu:10}" + "".join(f"{gains[gpu, batch]:<11.2f}" for batch in BATCHES))

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for number, (batch, colour) in enumerate(BATCHES.items()):
        places = [place + (number - 1) * 0.27 for place in range(len(GPUS))]
        axes.bar(places, [gains[gpu, batch] - 1 for gpu in GPUS], 0.25, bottom=1, color=colour, label=f"batch {batch}")
    axes.set_xticks(range(len(GPUS)), GPUS)
    axes.set_ylabel("estimated speed-up of 2:4")
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=90)
    print(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if sys.argv[2:] else "gains.png"))
