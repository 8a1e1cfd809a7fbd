"""A report whose names come from hostile files, in a real browser: layers, their classes, files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsegpt_cli.report import render_report
from tests.support.reports import BROWSER, HOSTILE, Page, browse, sample_run, without_policy, write_run

FILE = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'<\\script>"  # as far as a name can go


@pytest.fixture
def report(tmp_path: Path) -> Path:
    files = sample_run(4)
    for place, key in enumerate(("name", "kind", "reason")):
        files["prune.json"]["layers"][place][key] = HOSTILE
    files["manifest.json"]["files"][HOSTILE] = {"sha256": "ab", "bytes": 1}
    files["prune.json"]["model"]["spec"] = HOSTILE
    files[f"{FILE}.plan.json"] = {**files["sparse.plan.json"], "note": HOSTILE}
    return render_report(write_run(tmp_path, files))


def test_hostile_names_are_shown_as_text(report: Path) -> None:
    page = Page(report.read_text())
    assert not page.problems
    assert "img" not in page.tags
    assert FILE in page.text
    assert page.text.count("<script>document.title=") > 5


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_hostile_names_do_nothing_in_a_browser(tmp_path: Path, report: Path) -> None:
    dom = browse(tmp_path, without_policy(report), "--dump-dom")
    assert "sparsegpt-trt report</title>" in dom
    assert "<title>run" not in dom
    assert not Page(dom).problems
    assert "img" not in Page(dom).tags


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_the_browser_would_have_run_it(tmp_path: Path) -> None:
    """What the other test looks for does happen where nothing is escaped."""
    page = tmp_path / "naive.html"
    page.write_text(f"<title>sparsegpt-trt report</title><p>{HOSTILE.encode(errors='replace').decode()}")
    assert "<title>run</title>" in browse(tmp_path, page, "--dump-dom")
