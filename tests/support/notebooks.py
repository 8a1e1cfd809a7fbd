"""Executes a notebook: ``python -m tests.support.notebooks SOURCE TARGET``. The result has no times and no versions."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(source: Path, target: Path) -> None:
    """Run all cells in the folder of ``target``, and write the notebook with their outputs.

    Raises:
        CellExecutionError: A cell fails.
    """
    notebook = nbformat.read(source, 4)
    place = {"metadata": {"path": str(target.parent)}}
    NotebookClient(notebook, timeout=300, record_timing=False, coalesce_streams=True, resources=place).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _smaller(output.data["image/png"])
    notebook.metadata = nbformat.from_dict(_METADATA)
    nbformat.write(notebook, target)


def _smaller(picture: str) -> str:
    """Reduce a picture to 96 colours, which are enough for a chart."""
    content = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").quantize(96).save(content, "png", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


if __name__ == "__main__":
    execute(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
