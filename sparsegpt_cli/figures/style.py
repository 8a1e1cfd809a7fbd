"""The style of all charts. In the report they are inline SVG, with colours from the page's style sheet."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["ACCENT", "INK", "LINE", "MUTED", "PAPER", "WIDTH", "ZERO", "chart_style", "label", "name_rows", "svg"]

WIDTH = 10.0  # inches; 960 CSS pixels
_MAX_LABEL_LETTERS = 40
ZERO = 1e-12  # smaller errors count as zero, which a logarithmic axis cannot show

INK, MUTED, LINE, ACCENT, PAPER = "#1c2127", "#5d6671", "#d9dde3", "#1f5fbf", "#fefefe"
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", PAPER: "--paper"}


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows of a chart, the first at the top.

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
    return Markup(text)  # matplotlib escapes the text it writes


def _variable(colour: str) -> str:
    return f"var({_VARIABLES[colour]})" if colour in _VARIABLES else colour
