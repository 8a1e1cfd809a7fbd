"""The style of all charts. In the report they are inline SVG, with colours from the page's style sheet."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "INK",
    "LINE",
    "MUTED",
    "PAPER",
    "WIDTH",
    "ZERO",
    "chart_style",
    "explain_dots",
    "explain_rows",
    "label",
    "name_rows",
    "svg",
]

WIDTH = 10.0  # inches; 960 CSS pixels
_MAX_LABEL_LETTERS = 40
ZERO = 1e-12  # smaller errors count as zero, which a logarithmic axis cannot show

INK, MUTED, LINE, ACCENT, PAPER = "#1c2127", "#5d6671", "#d9dde3", "#1f5fbf", "#fefefe"
_NOTHING = (0, 0, 0, 0)  # a colour without opacity
_LINK = re.compile(r'<a xlink:href="([^"|]*)(?:\|([^"]*))?"[^>]*>(.*?)</a>', re.DOTALL)
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", PAPER: "--paper"}


def name_rows(axes: Axes, names: Sequence[str], links: Sequence[str] = ()) -> None:
    """Label the rows of a chart, the first at the top.

    Args:
        axes: The chart.
        names: One for each row.
        links: Where a click on each name leads, such as ``#layer-0``. Empty: nowhere.

    Example:
        >>> axes = Figure().subplots()
        >>> name_rows(axes, ["conv1", "fc"])
        >>> [text.get_text() for text in axes.get_yticklabels()]
        ['conv1', 'fc']
    """
    axes.set_yticks(range(len(names)), labels=[label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="x")
    for text, link in zip(axes.get_yticklabels(), links, strict=False):
        text.set_url(link or None)


def explain_rows(axes: Axes, texts: Sequence[str], links: Sequence[str] = ()) -> None:
    """Show a text while the pointer is over a row. Only :func:`svg` can write such a chart.

    Args:
        axes: The chart.
        texts: One for each row.
        links: As for :func:`name_rows`.

    Example:
        >>> with chart_style():
        ...     figure = Figure()
        ...     explain_rows(figure.subplots(), ["conv1: 0.02"])
        ...     "<title>conv1: 0.02</title>" in svg(figure, salt="example")
        True
    """
    for y, (text, link) in enumerate(zip_longest(texts, links, fillvalue="")):
        axes.axhspan(y - 0.5, y + 0.5, color=_NOTHING, linewidth=0, zorder=9, url=f"{link}|{text}")


def explain_dots(axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Show a text while the pointer is over a dot. Only :func:`svg` can write such a chart.

    Example:
        >>> with chart_style():
        ...     figure = Figure()
        ...     explain_dots(figure.subplots(), [(1.1, 2.0), (1.2, 3.0)], ["1.1×", "1.2×"])
        ...     "<title>1.2×</title>" in svg(figure, salt="example")
        True
    """
    x, y = zip(*points, strict=True)
    axes.scatter(x, y, s=90, color=_NOTHING, linewidth=0, zorder=9, urls=[f"|{text}" for text in texts])


def label(name: str) -> str:
    """Return the end of a name that is too long, since names differ there.

    Example:
        >>> label("features.denseblock1.denselayer1.layers.norm1.conv")
        '…nseblock1.denselayer1.layers.norm1.conv'
    """
    return name if len(name) <= _MAX_LABEL_LETTERS else "…" + name[1 - _MAX_LABEL_LETTERS :]


@contextmanager
def chart_style() -> Iterator[None]:
    """Draw with matplotlib's defaults and this style; the user's matplotlibrc is ignored.

    Example:
        >>> with chart_style():
        ...     matplotlib.rcParams["font.size"]
        9.0
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser uses its own fonts, so a glyph that DejaVu lacks still shows.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "text.parse_math": False,  # a $ in a layer's name is a $
                "font.size": 9,
                "text.color": MUTED,
                "axes.labelcolor": MUTED,
                "axes.edgecolor": LINE,
                "axes.axisbelow": True,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.spines.left": False,
                "xtick.color": LINE,
                "xtick.labelcolor": MUTED,
                "ytick.color": LINE,
                "ytick.labelcolor": MUTED,
                "grid.color": LINE,
                "grid.linewidth": 0.6,
            }
        )
        yield


def svg(figure: Figure, salt: str) -> Markup:
    """Return the ``<svg>`` element. The same figure gives the same bytes; another ``salt`` gives other identifiers.

    Example:
        >>> with chart_style():
        ...     element = svg(Figure(figsize=(2, 1)), salt="example")
        >>> element.startswith("<svg")
        True
    """
    matplotlib.rcParams["svg.hashsalt"] = salt
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<g) id="[\w.]+"', r"\1", text)  # figure_1, axes_1: the same in every chart, and not used
    text = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", lambda m: f"{m[1]}: {_variable(m[2])}", text)
    text = _LINK.sub(_explained, text)
    return Markup(text)  # matplotlib escapes the text it writes


def _explained(link: re.Match[str]) -> str:
    """Return a link, or a part of the chart with a text. The Tab key skips links with a text: names lead there too."""
    target, text, content = link.groups()
    title = f"<title>{text}</title>" if text else ""
    if not target:
        return f"<g>{title}{content}</g>"
    focus = ' tabindex="-1"' if text else ""
    return f'<a href="{target}"{focus}>{title}{content}</a>'


def _variable(colour: str) -> str:
    return f"var({_VARIABLES[colour]})" if colour in _VARIABLES else colour
