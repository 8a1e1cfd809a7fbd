"""docs/errors.md: its rows are those that the tests try. ``python -m tests.errors.test_table`` writes it anew."""

from pathlib import Path

import pytest

from sparsegpt_core.files.atomic import write_text
from tests.support.error_rows import Row, data, files, numbers, onnx, weights
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "errors.md"
MODULES = (weights, data, onnx, files, numbers)
HEAD = """# Errors
What a wrong input does. Written by `python -m tests.errors.test_table`; every row is a test. A line on standard error
begins with `error:` (`warning:` where the exit status is 0), is continued as below, and is the only one; … stands for names,
and for what a library says in its own words. With `--json` the same goes to standard output as `error` and `hint`. *Left*
is what is new on disk afterwards. Files in the commands are called after what is wrong with them.
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
