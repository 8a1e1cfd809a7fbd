"""``--help`` in panels. It shows the options of ordinary use; ``--help-all`` shows all options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperCommand

__all__ = ["PANELS", "PanelCommand", "panel_of"]

PANELS: Mapping[str, Sequence[str]] = {
    "Input": ("model", "weights", "dense", "plan-b", "plan-c", "times", "config", "seed"),
    "Data": ("data", "data-root", "eval-data", "image-size", "samples", "seeds", "labels"),
    "Pruning": ("quality", "method", "pattern", "layers", "include", "exclude"),
    "Training": ("epochs", "learning-rate", "schedule", "augment", "optimizer", "distill"),
    "Target": ("max-disagreement", "min-speedup", "max-drop", "metric", "fail-on", "strict"),
    "Output": ("out", "int8", "precision", "name", "version", "force", "jobs", "verbose", "json", "quiet"),
    "Engine": (
        *("gpu", "gpu-index", "engine-batch", "shapes", "measure", "runtime", "backend", "sparse"),
        *("compute-capability", "timing-cache", "hardware", "version-compatible", "quick", "rebuilds", "plans"),
        *("max-batch-size", "preferred-batch-sizes", "instances"),
    ),
    "Expert": (),
}
"""The options that ``--help`` shows, by panel and in this order. All other options are for experts."""

_PANEL_OF = {f"--{name}": panel for panel, names in PANELS.items() for name in names}
_ORDER = {name: place for place, name in enumerate(_PANEL_OF)}
_NAMES = ["--help", "--help-all"]
_RANGE = re.compile(r"; [\d<=]*x[<>]=\d+(?=\])|  \[[\d<=]*x[<>]=\d+\]")
_SHOWS_ALL = "sparsegpt_cli.shows_all"
_COLUMN = 30


class PanelCommand(TyperCommand):
    """A command whose options are shown in panels."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return ``[OPTIONS]`` and the arguments; those in brackets are optional."""
        names = [(_argument(each), each.required) for each in self.params if each.param_type_name == "argument"]
        return ["[OPTIONS]", *(name if required else f"[{name}]" for name, required in names)]

    def get_help_option_names(self, ctx: Any) -> list[str]:
        """Return the two names of the option that shows the help."""
        return list(_NAMES)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; the help needs to know which of its names is among them."""
        ctx.meta[_SHOWS_ALL] = "--help-all" in args
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the panels, each with a heading."""
        panels: dict[str, list[tuple[str, str]]] = {panel: [] for panel in PANELS}
        for parameter in sorted(self.params, key=_order):
            panels[panel_of(parameter)].append(_record(parameter, ctx))
        if panels["Expert"] and not ctx.meta.get(_SHOWS_ALL):
            more = len(panels.pop("Expert"))
            panels["Output"].append((", ".join(_NAMES), f"Show this page, or all options: {more} more."))
        else:
            panels["Output"].append((_NAMES[0], "Show this page."))
        width = min(_COLUMN, max(len(name) for records in panels.values() for name, _ in records))
        for panel, records in panels.items():
            if records:
                with formatter.section(panel):
                    formatter.write_dl([(name.ljust(width), text) for name, text in records], _COLUMN)


def panel_of(parameter: Any) -> str:
    """Return the panel of an option, or of an argument, which is input."""
    if parameter.param_type_name == "argument":
        return "Input"
    return str(parameter.rich_help_panel or _PANEL_OF.get(parameter.opts[0], "Expert"))


def _record(parameter: Any, ctx: Any) -> tuple[str, str]:
    """Return the name and the text of an option, without the range of a number, which an error tells."""
    name, text = parameter.get_help_record(ctx)
    text = re.sub(r"(\[default: )\((.*)\)", r"\1\2", _RANGE.sub("", text))
    return _argument(parameter) if parameter.param_type_name == "argument" else name, text


def _argument(parameter: Any) -> str:
    return str(parameter.name).upper()


def _order(parameter: Any) -> int:
    """Arguments come first, and experts' options last, in the order of their declaration."""
    return -1 if parameter.param_type_name == "argument" else _ORDER.get(parameter.opts[0], len(_ORDER))
