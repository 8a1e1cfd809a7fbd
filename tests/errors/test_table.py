"""docs/errors.md lists the rows that the tests try. ``python -m tests.errors.test_table`` writes it."""

from pathlib import Path

import pytest

from sparsegpt_core.files import write_text
from tests.support.error_rows import Row, data, files, metrics, numbers, onnx, weights
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "errors.md"
MODULES = (weights, data, onnx, files, numbers, metrics)
HEAD = """# Errors
What each wrong input does. `python -m tests.errors.test_table` writes this page; every row is a test. Standard error
holds one line: `error:` (`warning:` where the exit status is 0) and then the text below. … stands for a name, or for a
library's own words. With `--json`, standard output holds the same text as `error` and `hint`. *Left* lists what is new
on disk afterwards. The file names in the commands say what is wrong with the file.
"""


def page() -> str:
    """Return docs/errors.md."""
    return HEAD + "".join(section(module) for module in MODULES)


def section(module) -> str:
    rows = "".join(line(row, module) for row in module.ROWS)
    head = "| what is wrong | command | line | exit | left | test |\n| --- | --- | --- | --- | --- | --- |\n"
    return f"\n## {module.TITLE}\n{head}{rows}"


def line(row: Row, module) -> str:
    test = row.test or f"errors/test_{Path(module.__file__).name}"
    said = row.line.replace("|", "\\|").replace("<", "&lt;") or "-"
    return f"| {row.wrong} | `{row.command}` | {said} | {row.code} | {row.left or 'nothing'} | {test} |\n"


def test_the_page_is_that_of_the_rows():
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.TITLE)
def test_rows_are_told_apart_and_their_tests_are_there(module):
    for row in module.ROWS:
        if row.test:
            file, _, name = row.test.partition("::")
            assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), row.test
    lines = [line(row, module) for row in module.ROWS]
    assert len(set(lines)) == len(lines)


if __name__ == "__main__":
    write_text(PAGE, page())
