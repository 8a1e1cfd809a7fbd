"""The factories of docs/detectors.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from sparsegpt_core.zoo import ModelShape, build_model
from tests.support.paths import ROOT

TORCHVISION, ULTRALYTICS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "detectors.md").read_text(), re.DOTALL | re.MULTILINE
)
HEADS = ["cls_logits", "bbox_regression"]
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


def test_factories_are_short() -> None:
    """Ten lines at most, with the class that several of them share."""
    for block in (TORCHVISION, ULTRALYTICS):
        for definition in re.split(r"\n{3}", block):
            assert len([line for line in definition.splitlines() if line.strip()]) <= 10, definition


def test_the_example_of_ultralytics_is_python() -> None:
    """The package has the AGPL license, so that no test installs it."""
    compile(ULTRALYTICS, "docs/detectors.md", "exec")
