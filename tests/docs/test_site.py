"""The pages of the site: the navigation has them all, and the links between them lead somewhere.

``make docs`` builds the site, and fails on any warning. These tests need no MkDocs.
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
NOTEBOOKS = [f"examples/{path.stem}.md" for path in (ROOT / "examples").glob("*.ipynb")]  # docs/notebooks_hook.py
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docker" / "README.md", *(DOCS / page for page in PAGES)]
BLOCK = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def named(entry: Any) -> Iterator[str]:
    """The pages of one entry of a navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from named(part)


def anchors(path: Path) -> set[str]:
    """What a link can name in a page, as GitHub and MkDocs both derive it from headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def test_the_navigation_names_every_page_once():
    """A decision is listed in decisions/index.md instead, which keeps the navigation short."""
    pages = list(named(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(set(pages)) == len(pages)
    assert sorted(pages) == sorted([*NOTEBOOKS, *(page for page in PAGES if not page.startswith("decisions/0"))])


def test_every_decision_is_listed_with_its_title():
    listed = (DOCS / "decisions" / "index.md").read_text().splitlines()
    for path in sorted((DOCS / "decisions").glob("0*.md")):
        number, title = path.read_text().splitlines()[0].removeprefix("# ").split(". ", 1)
        assert f"{number}. [{title}]({path.name})" in listed


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda path: path.name)
def test_links_of_notebooks_lead_somewhere(path: Path):
    cells = json.loads(path.read_text())["cells"]
    texts = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert [link for link in LINK.findall(texts) if not (path.parent / link).exists()] == []


def test_a_notebook_becomes_a_page():
    hook = runpy.run_path(str(DOCS / "notebooks_hook.py"))
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text."]},
        {
            "cell_type": "code",
            "source": ["# A line\n", "plot()"],
            "outputs": [
                {"output_type": "stream", "text": ["\x1b[1mbold\x1b[0m\n"]},
                {"output_type": "display_data", "data": {"image/png": "UE5H\n", "text/plain": ["<Figure>"]}},
            ],
        },
        {"cell_type": "code", "source": ["!sparsegpt-trt doctor"], "outputs": []},
    ]
    pictures: list[bytes] = []
    assert hook["page"]({"cells": cells}, "name", pictures).split("\n\n") == [
        "# Title\nText.",
        "```python\n# A line\nplot()\n```",
        "```text\nbold\n```",
        "![A line](name-0.png)",
        "```console\nsparsegpt-trt doctor\n```\n",
    ]
    assert pictures == [b"PNG"]


def test_every_figure_is_used():
    texts = "".join(path.read_text() for path in TEXTS)
    assert [path.name for path in (DOCS / "figures").iterdir() if path.name not in texts] == []
