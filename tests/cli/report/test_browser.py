"""The HTML report in a real browser: nothing in it runs, and it fits wide and narrow screens."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsegpt_cli.report import render_comparison, render_report
from tests.support.reports import (
    BROWSER,
    browse,
    engine_run,
    hostile_engine_run,
    hostile_run,
    sample_run,
    without_policy,
    write_run,
)

FRAME = """<!DOCTYPE html><body style="margin:0">
<iframe id="page" src="{name}" style="width:{width}px; height:900px; border:0"></iframe>
<script>
onload = () => {{
  const page = document.getElementById("page").contentDocument;
  const view = page.defaultView, shown = new Set(), rows = [];
  let width = page.documentElement.scrollWidth;
  for (const choice of page.querySelectorAll("input")) {{
    choice.click();
    width = Math.max(width, page.documentElement.scrollWidth);
    const panels = [...page.querySelectorAll(".panel")].filter(panel => view.getComputedStyle(panel).display != "none");
    panels.forEach(panel => shown.add(panel));
    if (choice.name == "tab" && panels.length != 1) document.body.dataset.panels = "not one at a time";
    if (choice.name == "kernel")
      rows.push([...page.querySelectorAll("tr[class$=-kernel]")]
        .filter(row => view.getComputedStyle(row).display != "none").length);
  }}
  document.body.dataset.panels ??= shown.size;
  document.body.dataset.rows = rows;
  document.body.dataset.width = width;
  document.body.dataset.title = page.title;
  document.body.dataset.charts = page.querySelectorAll("figure svg text").length;
}};
</script>"""


pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")


def look(folder: Path, page: Path, width: int) -> dict[str, str]:
    """Return what FRAME finds in a page."""
    copy = without_policy(page)
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(name=copy.name, width=width))
    dom = browse(folder, frame, f"--window-size={max(width, 500)},900", "--dump-dom")
    return dict(re.findall(r'data-(\w+)="([^"]*)"', dom))


def test_each_tab_shows_one_part_and_kernels_can_be_selected(tmp_path: Path) -> None:
    found = look(tmp_path, render_report(write_run(tmp_path, engine_run())), 1280)
    assert found["panels"] == "4"
    assert found["rows"] == "20,13,6,1"


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("make", [lambda: sample_run(12), hostile_run, hostile_engine_run])
def test_nothing_runs_and_nothing_overflows(tmp_path: Path, width: int, make: Callable[[], dict[str, Any]]) -> None:
    found = look(tmp_path, render_report(write_run(tmp_path, make())), width)
    assert int(found["width"]) <= width
    assert int(found["charts"]) > 20
    assert found["title"].endswith("sparsegpt-trt report")


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("make", [lambda: sample_run(12), hostile_engine_run])
def test_nothing_runs_and_nothing_overflows_in_a_comparison(
    tmp_path: Path, width: int, make: Callable[[], dict[str, Any]]
) -> None:
    first, second = make(), make()
    second["prune.json"]["settings"] = {"method": "other", "damping": 0.5}
    second["prune.json"]["layers"][3]["status"] = "dense"
    runs = [write_run(tmp_path / name, files) for name, files in (("a", first), ("b" * 60, second))]
    found = look(tmp_path, render_comparison(*runs, tmp_path / "comparison.html"), width)
    assert int(found["width"]) <= width
    assert int(found["charts"]) > 8
    assert found["title"].endswith("sparsegpt-trt comparison")


def test_screenshot_is_drawn(tmp_path: Path) -> None:
    """REPORT_SCREENSHOT=file.png keeps the picture."""
    report = render_report(write_run(tmp_path, sample_run()))
    picture = Path(os.environ.get("REPORT_SCREENSHOT", tmp_path / "report.png")).resolve()
    browse(tmp_path, report, "--window-size=1280,2400", f"--screenshot={picture}")
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 100_000  # a blank page of this size takes some 15 kB
