"""What a reader can do in the report, with mouse and keyboard in a real browser. The page's policy is in force."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsegpt_cli.report import render_comparison, render_report
from tests.support.browser import Tab, browser_tab
from tests.support.reports import BROWSER, engine_run, sample_run, write_run

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")

LAYERS = "document.querySelector('#layer-0').closest('table')"
"""The table of all layers."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser_tab(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = copy.deepcopy(sample_run(12))
    layers = files["prune.json"]["layers"]
    layers[5]["positions"], layers[6]["positions"], layers[7]["positions"] = 5, 1_000_000, 99_999
    sizes = {"a": 999, "b": 1_000_000_000, "c": 46_800_000}
    files["manifest.json"]["files"] = {name: {"sha256": name, "bytes": size} for name, size in sizes.items()}
    return render_report(write_run(tmp_path_factory.mktemp("run"), files))


def cells(tab: Tab, table: str, column: int) -> list[str]:
    found: list[str] = tab.value(f"[...{table}.tBodies[0].rows].map(row => row.cells[{column}].textContent)")
    return ["".join(text.split()) for text in found]


def header(table: str, text: str) -> str:
    return f"[...{table}.querySelectorAll('th')].find(th => th.textContent.startsWith('{text}'))"


def state(tab: Tab, table: str) -> dict[str, str]:
    """The headers that are sorted."""
    shown = "[...{}.querySelectorAll('th[aria-sort]')].map(th => [th.textContent, th.getAttribute('aria-sort')])"
    return dict(tab.value(shown.format(table)))


def test_a_click_sorts_numbers_and_a_third_returns_to_running_order(tab: Tab, report: Path) -> None:
    tab.open(report)
    before = cells(tab, LAYERS, 0)
    button = f"{header(LAYERS, 'Positions')}.firstChild"
    tab.click(button)
    assert state(tab, LAYERS) == {"Positions": "ascending"}
    found = cells(tab, LAYERS, 8)
    assert found[:2] == ["5,23040used", "99999,23040used"]
    assert found[8:] == ["1000000,23040used", "–", "–", "–"]
    names = cells(tab, LAYERS, 0)
    assert names[-3:] == ["conv1", "layer1.0.conv2", "fc"]  # dashes in running order
    assert names[2:8] == [name for name in before if name in names[2:8]]  # equal numbers too
    tab.click(button)
    assert state(tab, LAYERS) == {"Positions": "descending"}
    assert cells(tab, LAYERS, 8)[0] == "1000000,23040used"
    assert cells(tab, LAYERS, 0)[-3:] == names[-3:]
    tab.click(button)
    assert state(tab, LAYERS) == {}
    assert cells(tab, LAYERS, 0) == before


def test_a_key_sorts_and_the_focus_stays(tab: Tab, report: Path) -> None:
    tab.open(report)
    button = f"{header(LAYERS, 'Output error')}.firstChild"
    tab.value(f"{header(LAYERS, 'Sparsity')}.firstChild.focus()")
    tab.press("Tab")
    assert tab.value(f"document.activeElement == {button}")
    for key, direction in (("Enter", 1), ("Space", -1)):
        tab.press(key)
        errors = [float(text) for text in cells(tab, LAYERS, 5) if text != "–"]
        assert errors == sorted(errors)[::direction]
        assert tab.value(f"document.activeElement == {button}")
    assert state(tab, LAYERS) == {"Output error": "descending"}
    tab.click(f"{header(LAYERS, 'Layer')}.firstChild")
    assert list(state(tab, LAYERS)) == ["Layer"]  # one column at a time


def test_names_sort_by_their_numbers_and_sizes_by_their_bytes(tab: Tab, report: Path) -> None:
    tab.open(report)
    tab.click(f"{header(LAYERS, 'Layer')}.firstChild")
    names = cells(tab, LAYERS, 0)
    assert names == ["conv1", "fc", *(f"layer1.{i // 4}.conv{1 + i % 4}" for i in range(1, 11))]
    files = "[...document.querySelectorAll('table')].at(-1)"
    tab.click(f"{header(files, 'Size')}.firstChild")
    assert cells(tab, files, 1) == ["999B", "46.8MB", "1.0GB"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose layers conv1 and layer1.0.conv2 are in the engines too."""
    return render_report(write_run(tmp_path_factory.mktemp("engines"), engine_run()))


def link(text: str, place: int = 0) -> str:
    return f"[...document.querySelectorAll('a')].filter(a => a.textContent.trim() == '{text}')[{place}]"


def target(tab: Tab) -> tuple[str, bool]:
    """The id of the highlighted row, and whether it is in the window."""
    row = "document.querySelector('tr:target')"
    box = tab.value(f"(r => [r.width * r.height, r.top, innerHeight - r.bottom])({row}.getBoundingClientRect())")
    colour = tab.value(f"getComputedStyle({row}.cells[0]).backgroundColor")
    assert colour != "rgba(0, 0, 0, 0)"
    return tab.value(f"{row}.id"), min(box) > 0


@pytest.mark.parametrize(("part", "width"), [("text", 1280), ("path", 1280), ("text", 400)])
def test_a_chart_leads_to_the_row_of_a_layer_in_closed_details(tab: Tab, report: Path, part: str, width: int) -> None:
    tab.open(report, width)
    tab.value("document.querySelectorAll('details').forEach(each => { each.open = false; })")
    tab.click(f"document.querySelector('svg a[href=\"#layer-3\"] {part}')")
    assert target(tab) == ("layer-3", True)
    assert tab.value("document.querySelector('tr:target').closest('.scroll').scrollLeft") == 0  # the name is in view


def test_the_layers_left_dense_lead_to_their_rows(tab: Tab, report: Path) -> None:
    tab.open(report)
    reasons = "[...document.querySelectorAll('table')].find(t => t.textContent.includes('FIRST_LAYER'))"
    tab.click(f"{reasons}.querySelector('a')")
    assert target(tab) == ("layer-0", True)


def test_a_layer_leads_to_the_engines_and_back_by_keyboard(tab: Tab, engines: Path) -> None:
    tab.open(engines)
    tab.value("document.querySelector('#kernel-sparse').checked = true")
    tab.value("document.querySelector('#layer-1 a').focus()")
    tab.press("Enter")
    found, shown = target(tab)
    assert shown
    assert found.startswith("engine-layer-")
    assert tab.value("document.querySelector('#tab-layers').checked && document.querySelector('#kernel-all').checked")
    tab.value("document.querySelector('tr:target a').focus()")
    tab.press("Enter")
    assert target(tab) == ("layer-1", True)
    tab.value("document.querySelector('#tab-latency').checked = true")
    tab.value("history.back()")
    tab.settle()
    assert target(tab) == (found, True)


def test_an_address_with_a_row_opens_its_tab(tab: Tab, engines: Path) -> None:
    tab.open(engines, fragment="engine-layer-4")
    assert target(tab) == ("engine-layer-4", True)


def test_the_pointer_over_a_row_of_a_chart_meets_its_values(tab: Tab, report: Path) -> None:
    tab.open(report)
    part = "document.querySelector('svg a[href=\"#layer-3\"] title').parentElement"
    tab.value(f"{part}.scrollIntoView({{block: 'center'}})")
    over = f"(r => document.elementFromPoint(r.x + 5, r.y + r.height / 2))({part}.getBoundingClientRect())"
    assert tab.value(f"{over}.closest('a') == {part}")


def test_the_policy_refuses_every_other_script(tab: Tab, report: Path) -> None:
    other = report.with_name("other.html")
    attacks = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    other.write_text(report.read_text().replace("</main>", f"{attacks}</main>"))
    tab.open(other)
    assert tab.value("document.querySelectorAll('th button').length") > 20  # ours ran
    assert tab.value("document.title").endswith("sparsegpt-trt report")


def test_a_comparison_sorts_by_the_ratio_and_leads_to_its_rows(tab: Tab, report: Path, tmp_path: Path) -> None:
    other = copy.deepcopy(sample_run(12))
    for place, layer in enumerate(other["prune.json"]["layers"]):
        layer["relative_error"] = layer["relative_error"] and layer["relative_error"] * (1 + 7 * place % 5)
    tab.open(render_comparison(report.parent, write_run(tmp_path / "b", other), tmp_path / "comparison.html"))
    tab.click(f"{header(LAYERS, 'B ÷ A')}.firstChild")
    ratios = cells(tab, LAYERS, 6)
    assert ratios[-3:] == ["–"] * 3
    assert [float(text) for text in ratios[:-3]] == sorted(map(float, ratios[:-3]))
    tab.click("document.querySelector('svg a[href=\"#layer-3\"] text')")
    assert target(tab) == ("layer-3", True)
