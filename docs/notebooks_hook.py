"""A hook of MkDocs: the notebooks of examples/ become pages, with the outputs and pictures that they contain.

Nothing runs. Links to a notebook become links to its page.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\]\(([^)#:]+)\.ipynb\)")
ANSI = re.compile(r"\x1b\[[\d;]*m")
FOLDER = "examples"
"""Of the notebooks in the repository, and of their pages on the site."""


def on_files(files: Any, *, config: Any) -> Any:
    """Add a page for each notebook, and its pictures."""
    from mkdocs.structure.files import File  # the tests have no MkDocs

    root = Path(config.config_file_path).parent
    for path in sorted((root / FOLDER).glob("*.ipynb")):
        pictures: list[bytes] = []
        text = page(json.loads(path.read_text(encoding="utf-8")), path.stem, pictures)
        files.append(File.generated(config, f"{FOLDER}/{path.stem}.md", content=text))
        for number, picture in enumerate(pictures):
            files.append(File.generated(config, f"{FOLDER}/{path.stem}-{number}.png", content=picture))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead links to notebooks to their pages."""
    here = posixpath.dirname(page.file.src_uri)

    def replaced(match: re.Match[str]) -> str:
        target = posixpath.join(FOLDER, f"{posixpath.basename(match[1])}.md")
        return f"]({posixpath.relpath(target, here or '.')})"

    return LINK.sub(replaced, markdown)


def page(notebook: dict[str, Any], name: str, pictures: list[bytes]) -> str:
    """Return a notebook as Markdown.

    Args:
        notebook: The content of the file.
        name: The name of the page; its pictures are ``NAME-0.png`` and so on.
        pictures: Receives the pictures.
    """
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```{'console' if source.startswith('!') else 'python'}\n{source.removeprefix('!')}\n```")
        for output in cell["outputs"]:
            picture = output.get("data", {}).get("image/png")
            if picture:
                title = source.partition("\n")[0].removeprefix("# ")
                parts.append(f"![{title}]({name}-{len(pictures)}.png)")
                pictures.append(base64.b64decode("".join(picture)))
            elif "text" in output:
                parts.append(f"```text\n{ANSI.sub('', ''.join(output['text'])).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"
