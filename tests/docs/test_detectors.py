"""The factories of docs/detectors.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sparsegpt_core.zoo import ModelShape, build_model
from tests.support.paths import ROOT

TORCHVISION, ULTRALYTICS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "detectors.md").read_text(), re.DOTALL | re.MULTILINE
)
HEADS = ["cls_logits", "bbox_regression"]
RETINANET_HEADS = ["head.classification_head.cls_logits", "head.regression_head.bbox_reg"]
OUTPUTS = {
    "retinanet": HEADS,
    "fcos": [*HEADS, "bbox_ctrness"],
    "ssd": HEADS[::-1],
    "faster_rcnn": ["0", "1", "2", "3", "pool"],
    "deeplab": ["out"],
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_factory_of_torchvision_has_the_outputs_of_the_page(name: str, tmp_path: Path) -> None:
    """`make exports` exports and builds these networks, which takes minutes for each."""
    (tmp_path / "detectors.py").write_text(TORCHVISION)
    side = 300 if name == "ssd" else 64
    network = build_model(f"{tmp_path / 'detectors.py'}:{name}", ModelShape((3, side, side), None)).eval()
    with torch.inference_mode():
        assert list(network(torch.zeros(1, 3, side, side))) == OUTPUTS[name]


@pytest.mark.parametrize(
    ("name", "excluded", "pruned", "nodes", "heads"),
    [
        ("retinanet", ["backbone.*"], 8, 8 * 5, RETINANET_HEADS),
        ("deeplab", ["backbone.*", "*.convs.*"], 2, 2, ["classifier.4"]),
    ],
)
def test_a_factory_is_pruned_and_exported(
    name: str,
    excluded: list[str],
    pruned: int,
    nodes: int,
    heads: list[str],
    tmp_path: Path,
    cli: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the page's code and options, at 64 pixels. The rest stays dense, since it takes most of the time.

    RetinaNet's head runs on five maps. The export audits every pruned weight in the graph.
    """
    monkeypatch.chdir(tmp_path)
    Path("detectors.py").write_text(TORCHVISION)
    Path("photos").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")
    model = ("--model", f"./detectors.py:{name}")
    data = ("--data", "letterbox:photos", "--image-size", 64)
    scale = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    dense = [part for glob in excluded for part in ("--exclude", glob)]
    outcome = cli(
        *(
            "prune",
            "--layers=all",
            *model,
            *data,
            *scale,
            *dense,
            "--quality",
            "fast",
            "--out",
            "sparse.safetensors",
            "--json",
        )
    )
    assert outcome.code == 0, outcome.err
    layers = outcome.json["layers"]
    assert [layer["name"] for layer in layers if layer["reason"] == "HEAD"] == heads
    assert sum(layer["status"] == "pruned" for layer in layers) == pruned
    exported = cli("export", *model, "--weights", "sparse.safetensors", "--out", "sparse.onnx", "--json")
    assert exported.code == 0, exported.err
    assert list(exported.json["parity"]["channel_errors"]) == OUTPUTS[name]
    assert exported.json["sparse_layers"] == nodes


def test_factories_are_short() -> None:
    """Ten lines at most, with the class that several of them share."""
    for block in (TORCHVISION, ULTRALYTICS):
        for definition in re.split(r"\n{3}", block):
            assert len([line for line in definition.splitlines() if line.strip()]) <= 10, definition


def test_the_example_of_ultralytics_is_python() -> None:
    """The package has the AGPL license, so that no test installs it."""
    compile(ULTRALYTICS, "docs/detectors.md", "exec")
