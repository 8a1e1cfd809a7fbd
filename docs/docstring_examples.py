"""An extension of Griffe: the examples of docstrings become blocks of code on the pages of the API.

Griffe reads prompts only in a section `Examples`; elsewhere Markdown takes ``>>>`` for a quotation.
"""

from __future__ import annotations

from typing import Any

import griffe


class FencedExamples(griffe.Extension):
    """Puts fences around each run of lines that begins with a prompt and ends before an empty line."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)

    def on_module(self, *, mod: griffe.Module, **_: Any) -> None:
        """Change the docstring of a package, for which there is no other event."""
        self.on_object(obj=mod)


def fenced(docstring: str) -> str:
    """Return a docstring whose examples are in fences, at their own indentation."""
    lines: list[str] = []
    fence = ""
    for line in docstring.splitlines():
        text = line.strip()
        if text.startswith("```"):
            return docstring  # it has its fences
        if not fence and text.startswith(">>> "):
            fence = line[: len(line) - len(line.lstrip())] + "```"
            lines.append(f"{fence}pycon")
        elif fence and not text:
            lines.append(fence)
            fence = ""
        lines.append(line)
    return "\n".join([*lines, fence] if fence else lines)
