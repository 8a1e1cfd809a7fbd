"""A hook of MkDocs for links that leave docs/: the site has only the files of that folder.

Such a link becomes the text of the link with the file's path, or a link into the repository where mkdocs.yml names one
as ``repo_url``.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Replace the links of one page.

    Args:
        markdown: The text of the page.
        page: The page; its path decides where a relative link leads.
        config: The configuration; ``repo_url`` may name the repository.
    """
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def replaced(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.startswith("docs/"):
            return match[0]
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/HEAD/{path}{anchor or ''})"
        return f"{text} (`{path}` in the repository)"

    return LINK.sub(replaced, markdown)
