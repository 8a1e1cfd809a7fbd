"""The measurements as tables of docs/real-networks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.measurements import ROOT, Record, read_records
from benchmarks.pages import fill, table_line
from benchmarks.real_networks.jobs import GPUS, PRECISIONS, ROWS, TARGET
from benchmarks.real_networks.metrics import METRICS
from benchmarks.real_networks.networks import NETWORKS
from deploy.predict import LayerGains
from sparsegpt_core.files import read_json

__all__ = ["MISSING", "PAGE", "VERSIONS", "summarise"]

PAGE = ROOT / "docs" / "real-networks.md"
MISSING = "–"
VERSIONS = ("torch", "onnx", "onnxruntime")


def summarise(text: str, out: Path) -> str:
    """Return the page with its tables written again from the records in a folder."""
    gains = {record["network"]: record for record in read_records(out / "gains.jsonl")}
    tables = {
        "machine": [f"* {_machine(each)}" for each in read_json(out / "environment.json").values()],
        "methods": _methods(read_records(out / "methods.jsonl"), gains),
        "precisions": _precisions(read_records(out / "precisions.jsonl")),
        "gains": _gains(gains),
    }
    return fill(text, tables)


def _machine(environment: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {environment['versions'][name]}" for name in VERSIONS)
    return f"{environment['cpu']}, one core; Python {environment['python']}, {versions}"


def _methods(records: Sequence[Record], gains: Mapping[str, Record]) -> list[str]:
    lines = []
    for name, network in NETWORKS.items():
        own = [record for record in records if record["network"] == name]
        if not own:
            lines += [f"### {network.title}", "*Not measured yet.*", ""]
            continue
        about = f"{own[0]['samples']} calibration and {own[0]['tested']} test photos"
        if "dense_top1" in own[0]:
            about += f"; dense top-1 {own[0]['dense_top1']:.1f} %"
        about += f"; measured on {' and '.join(sorted({record['cpu'] for record in own}))}"
        columns = [metric for metric in METRICS if any(metric in record for record in own)]
        titles = ["method", "draws", "pruned", *(METRICS[metric][0] for metric in columns), "gain", "CPU seconds"]
        lines += [f"### {network.title}", f"{about}.", "", table_line(*titles), table_line(*["---"] * len(titles))]
        for (method, layers), title in ROWS.items():
            found = [record for record in own if (record["method"], record["layers"]) == (method, layers)]
            good = [record for record in found if "failure" not in record]
            cells = [
                _spread([len(record["pruned"]) for record in good], ".0f"),
                *(_spread([record.get(metric) for record in good], METRICS[metric][1]) for metric in columns),
                _spread([_gain(gains.get(name), record["pruned"]) for record in good], ".3f"),
                _spread([record["seconds"] for record in good], ".0f"),
            ]
            lines.append(table_line(title, len(found) or MISSING, *cells))
        lines += [*_failures(own), ""]
    return lines


def _failures(records: Sequence[Record]) -> list[str]:
    texts = {ROWS[record["method"], record["layers"]]: record["failure"] for record in records if "failure" in record}
    return [line for title, text in texts.items() for line in ("", f"{title}: {text}.")]


def _gain(gains: Record | None, pruned: Sequence[str]) -> float | None:
    """Return the estimated speed-up with these layers pruned, on ``TARGET`` in FP16; None without an estimate."""
    if gains is None:
        return None
    saved: dict[str, float] | None = gains["saved"][f"{TARGET} fp16"]
    return None if saved is None else LayerGains(saved, {}).speedup(pruned)


def _precisions(records: Sequence[Record]) -> list[str]:
    if not records:
        return ["*Not measured yet.*"]
    columns = ("top1", "disagreement", "kl", "error")
    titles = ["network", "method", "file", "draws", *(METRICS[metric][0] for metric in columns)]
    lines = [table_line(*titles), table_line(*["---"] * len(titles))]
    for name, network in NETWORKS.items():
        for row, title in ROWS.items():
            own = [each for each in records if (each["network"], each["method"], each["layers"]) == (name, *row)]
            for file in own[0]["files"] if own else ():
                cells = [
                    _spread([each["files"][file][metric] for each in own], METRICS[metric][1]) for metric in columns
                ]
                lines.append(table_line(network.title, title, file, len(own), *cells))
    return lines


def _gains(gains: Mapping[str, Record]) -> list[str]:
    targets = [f"{gpu} {precision}" for gpu in GPUS for precision in PRECISIONS]
    titles = ["network", "layers", "can be pruned", *targets]
    lines = [table_line(*titles), table_line(*["---"] * len(titles))]
    for name, network in NETWORKS.items():
        if name not in gains:
            lines.append(table_line(network.title, *[MISSING] * (len(titles) - 1)))
            continue
        record, saved = gains[name], gains[name]["saved"]
        cells = (_speedup(saved[target]) for target in targets)
        lines.append(table_line(network.title, record["layers"], record["prunable"], *cells))
    return lines


def _speedup(saved: Mapping[str, float] | None) -> str:
    return MISSING if saved is None else f"{LayerGains(saved, {}).speedup(saved):.3f}× ({len(saved)})"


def _spread(values: Sequence[float | None], form: str) -> str:
    """Return the mean, with (smallest … largest) of different values; a dash where nothing was measured."""
    known = [value for value in values if value is not None]
    if not known:
        return MISSING
    text, low, high = (f"{number:{form}}" for number in (mean(known), min(known), max(known)))
    return text if low == high else f"{text} ({low} … {high})"
