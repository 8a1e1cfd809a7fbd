"""docs/reference/commands.md lists the options of all commands. ``python -m tests.docs.test_commands`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from sparsegpt_cli.app import app
from sparsegpt_cli.framework import panel_of
from sparsegpt_core.files import write_text
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "reference" / "commands.md"
COMMON = ("--config", "--json", "--quiet", "--seed")
HEAD = """# Commands
`sparsegpt-trt COMMAND --help-all` shows the same texts, in panels; `--help` leaves out the panel Expert.
`python -m tests.docs.test_commands` writes this page from them, and a test compares it.

Progress and messages go to standard error. The exit status is 0 (done), 1 (a check failed or an input is wrong; one
line says what is wrong and how to fix it) or 2 (usage). `train`, `finetune`, `prune`, `prune-export`, `sweep` and `run`
resume after a kill when they are called again, and write the same bytes. Every command takes these options:
"""


def page() -> str:
    """Return docs/reference/commands.md."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    common = [option for option in commands["prune-export"].params if option.opts[0] in COMMON]
    return f"{HEAD}\n{table(common)}" + "".join(section(name, command) for name, command in commands.items())


def section(name: str, command: Any) -> str:
    arguments = [each for each in command.params if not each.opts[0].startswith("--")]
    options = [each for each in command.params if each not in arguments and each.opts[0] not in COMMON]
    call = " ".join(["sparsegpt-trt", name, *(argument.opts[0].upper() for argument in arguments)])
    return f"\n## {name}\n`{call}`\n\n{escaped(command.help)}\n\n{table([*arguments, *options])}"


def table(parameters: list[Any]) -> str:
    rows = [
        f"| {' or '.join(names(each))} | {escaped(each.help or '')} | {default(each)} | {panel_of(each)} |"
        for each in parameters
    ]
    return "\n".join(["| option | meaning | default | panel |", "| --- | --- | --- | --- |", *rows]) + "\n"


def names(parameter: Any) -> Iterator[str]:
    value = f" {parameter.metavar}".replace("|", "\\|") if parameter.metavar else ""
    for name in (*parameter.opts, *parameter.secondary_opts):
        yield f"`{name}{value}`" if name.startswith("--") else f"`{name.upper()}`"


def default(parameter: Any) -> str:
    """An option that has no value is told by its text what it does without one."""
    if parameter.required:
        return "required"
    if isinstance(getattr(parameter, "show_default", None), str):
        return escaped(parameter.show_default)
    value = parameter.default
    if isinstance(value, bool):
        return "on" if value else ("off" if parameter.secondary_opts else "")
    return "" if value is None or callable(value) or value in ("", [], ()) else f"`{value}`"


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def test_the_page_is_that_of_the_commands():
    assert PAGE.read_text(encoding="utf-8") == page()


if __name__ == "__main__":
    write_text(PAGE, page())
