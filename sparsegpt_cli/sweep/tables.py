"""The results of a sweep as CSV and Parquet. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import csv, parquet

from sparsegpt_core.files import atomic_path
from sparsegpt_core.patterns import parse_pattern

if TYPE_CHECKING:
    from sparsegpt_cli.sweep.cell import Task
    from sparsegpt_cli.sweep.cell_store import Record

__all__ = ["layer_rows", "read_layers", "read_results", "result_rows", "write_tables"]

Row = dict[str, Any]

_TEXT, _COUNT, _NUMBER = pa.string(), pa.int64(), pa.float64()
_CELL = {"checkpoint": _TEXT, "model": _TEXT, "method": _TEXT, "pattern": _TEXT, "samples": _COUNT, "seed": _COUNT}
_RESULTS = {
    **_CELL,
    **dict.fromkeys(("target_sparsity", "sparsity", "dense_top1", "top1", "difference"), _NUMBER),
    **dict.fromkeys(("difference_low", "difference_high", "dense_top5", "top5"), _NUMBER),
    **dict.fromkeys(("disagreement", "kl", "logit_error", "dense_loss", "loss"), _NUMBER),
    **{"evaluated": _COUNT, "layers": _COUNT, "pruned_layers": _COUNT, "seconds": _NUMBER},
    **{"checkpoint_sha256": _TEXT, "tool_version": _TEXT},
}
_METRIC = "metric_"  # starts the names of a metric's columns
_LAYERS = {
    **_CELL,
    **{"number": _COUNT, "layer": _TEXT, "kind": _TEXT, "shape": _TEXT, "status": _TEXT, "reason": _TEXT},
    **dict.fromkeys(("sparsity", "relative_error", "magnitude_error", "inherited_error", "sensitivity"), _NUMBER),
}


def result_rows(finished: Sequence[tuple[Task, Record]]) -> list[Row]:
    """Return a row for each cell. Accuracies and differences are in percent, sparsities are fractions.

    ``metrics`` has the figures of a metric by name, as in ``prune-export --json``; None without a metric.
    """
    return [_result_row(task, record["result"]) for task, record in finished]


def layer_rows(finished: Sequence[tuple[Task, Record]]) -> list[Row]:
    """Return a row for each layer of each cell, in running order."""
    return [
        {
            **_cell(task),
            **{name: layer.get(name) for name in _LAYERS if name not in _CELL},
            "number": number,
            "layer": layer["name"],
            "shape": "x".join(map(str, layer["shape"])),
        }
        for task, record in finished
        for number, layer in enumerate(record["result"]["layers"], start=1)
    ]


def write_tables(folder: Path, results: Sequence[Row], layers: Sequence[Row]) -> list[Path]:
    """Write ``results`` and ``layers``, each as ``.csv`` and ``.parquet``, and return the files.

    Each figure NAME of a metric has the columns ``metric_NAME_dense``, ``metric_NAME``, ``metric_NAME_difference``,
    ``metric_NAME_low`` and ``metric_NAME_high``.

    Raises:
        InputError: A file cannot be written.
    """
    written = []
    results = [{**row, **_metric_columns(row.get("metrics") or {})} for row in results]
    own = dict.fromkeys((name for row in results for name in row if name.startswith(_METRIC)), _NUMBER)
    for name, rows, columns in (("results", results, {**_RESULTS, **own}), ("layers", layers, _LAYERS)):
        table = pa.Table.from_pylist(list(rows), pa.schema(columns.items()))
        for suffix, write in ((".csv", csv.write_csv), (".parquet", parquet.write_table)):
            path = folder / f"{name}{suffix}"
            with atomic_path(path) as temporary:
                write(table, temporary)
            written.append(path)
    return written


def read_results(path: Path) -> list[Row]:
    """Read a ``results.csv``. Figures of a metric are in their columns, as :func:`write_tables` names them."""
    return _read(path, _RESULTS)


def read_layers(path: Path) -> list[Row]:
    """Read a ``layers.csv``."""
    return _read(path, _LAYERS)


def _read(path: Path, columns: dict[str, pa.DataType]) -> list[Row]:
    options = csv.ConvertOptions(column_types=columns, strings_can_be_null=True, quoted_strings_can_be_null=False)
    rows: list[Row] = csv.read_csv(path, convert_options=options).to_pylist()
    return rows


def _cell(task: Task) -> Row:
    cell = task.cell
    drawn = {"samples": cell.samples, "seed": cell.seed}
    return {
        "checkpoint": cell.checkpoint,
        "model": task.checkpoint.model,
        "method": cell.method,
        "pattern": cell.pattern,
        **drawn,
    }


def _result_row(task: Task, result: dict[str, Any]) -> Row:
    difference = result["difference"] or {}
    return {
        **_cell(task),
        "target_sparsity": parse_pattern(task.cell.pattern).sparsity,
        **{f"dense_{name}": result["dense"][name] for name in ("top1", "top5", "loss")},
        **result["sparse"],
        "difference": difference.get("value"),
        "difference_low": difference.get("low"),
        "difference_high": difference.get("high"),
        "metrics": result.get("metrics"),
        **{name: result[name] for name in ("sparsity", "disagreement", "kl", "logit_error", "evaluated", "seconds")},
        "layers": len(result["layers"]),
        "pruned_layers": sum(layer["status"] == "pruned" for layer in result["layers"]),
        "checkpoint_sha256": task.checkpoint.identity["checkpoint_sha256"],
        "tool_version": task.checkpoint.identity["tool_version"],
    }


def _metric_columns(metrics: dict[str, Any]) -> Row:
    columns: Row = {}
    for name, figure in metrics.items():
        dense, sparse = (figure["versions"][version] for version in ("dense", "sparse"))
        difference = sparse["difference"] or {}
        numbers = {"_dense": dense["value"], "": sparse["value"], "_difference": sparse["value"] - dense["value"]}
        numbers |= {"_low": difference.get("low"), "_high": difference.get("high")}
        columns |= {f"{_METRIC}{name}{end}": number for end, number in numbers.items()}
    return columns
