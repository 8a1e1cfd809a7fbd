"""Renders a run folder as ``report.html``, and two of them as a comparison."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sparsegpt_cli.report.charts import accuracy_chart, layer_charts, tradeoff_chart
from sparsegpt_cli.report.comparison import compare_runs
from sparsegpt_cli.report.engine_charts import arms_chart, distribution_chart
from sparsegpt_cli.report.formats import FILTERS
from sparsegpt_cli.report.reasons import advice
from sparsegpt_cli.report.summary import Summary
from sparsegpt_cli.report.view import read_run
from sparsegpt_core.files import write_text

__all__ = ["render_comparison", "render_report"]


def render_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder, from the JSON files in it.

    The page loads nothing. It runs one script, ``tables.js``, and its policy names the script's SHA-256: the browser
    refuses all others. The same files give the same bytes.

    Args:
        run: The folder that ``prune-export`` wrote. Engines and a benchmark in it are shown too.

    Returns:
        The path of the report.

    Raises:
        InputError: ``prune.json`` is missing, a file is not JSON or has the wrong structure, or the folder
            cannot be written.

    Example:
        >>> from sparsegpt_core.files import write_json
        >>> write_json(Path("prune.json"), {"layers": [{"name": "conv", "status": "pruned"}]})
        >>> render_report(Path()).name
        'report.html'
    """
    view = read_run(run)
    timed = view.benchmark.times if view.benchmark.on_engines else []
    scattered = [arm for arm in timed if arm.samples]
    html = (
        _environment()
        .get_template("report.html.j2")
        .render(
            view=view,
            summary=Summary(view),
            layer_charts=layer_charts(view.points, view.method),
            tradeoff_chart=tradeoff_chart(view.tradeoff) if view.tradeoff else None,
            accuracy_chart=accuracy_chart(view.differences) if view.differences else None,
            arms_chart=arms_chart(timed, view.benchmark.gains, view.benchmark.noise) if timed else None,
            distribution_chart=distribution_chart(scattered) if scattered else None,
        )
    )
    path = run / "report.html"
    write_text(path, html)
    return path


def render_comparison(first: Path, second: Path, out: Path) -> Path:
    """Write a page that compares two runs of one network, A and B.

    It shows what differs in inputs and settings, the results side by side, and the errors of each layer. The same
    protection as of :func:`render_report`, and the same bytes for the same files.

    Args:
        first: The folder of run A, which ``prune-export`` wrote.
        second: The folder of run B.
        out: The HTML file to write.

    Returns:
        The path of the page.

    Raises:
        InputError: A folder is not a run, the runs pruned different networks, or the page cannot be written.

    Example:
        >>> from sparsegpt_core.files import write_json
        >>> for run in ("a", "b"):
        ...     Path(run).mkdir()
        ...     write_json(Path(run, "prune.json"), {"layers": [{"name": "conv", "status": "pruned"}]})
        >>> render_comparison(Path("a"), Path("b"), Path("comparison.html")).name
        'comparison.html'
    """
    comparison = compare_runs(first, second)
    charts = layer_charts(comparison.points, "B", "A")
    page = _environment().get_template("comparison.html.j2")
    write_text(out, page.render(comparison=comparison, layer_charts=charts))
    return out


@functools.cache
def _environment() -> Environment:
    folder = Path(__file__).parent
    script = (folder / "tables.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS, advice=advice)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(script=Markup(script), script_digest=digest)  # a file of this package, no input
    return environment
