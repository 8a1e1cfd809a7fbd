"""The measurements as tables, with their bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from math import isnan, nan
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measurements import Record
from benchmarks.pruning.picture import draw
from benchmarks.pruning.records import Records, forward_ratio
from sparsegpt_core.files import write_text

__all__ = ["summarise"]

NAMES = {
    "dense": "dense forward pass (a)",
    "default": "whole pruning, default (b)",
    "plain": "whole pruning, plain SparseGPT (b)",
    "straightforward": "straightforward (c)",
    "modelopt": "Model Optimizer (d)",
}
MAIN_IMAGES = 128
GIB = 2**30
_BOUNDED = "resnet50"


def summarise(measurements: list[Record], environment: dict[str, Any], out: Path) -> None:
    """Write ``README.md`` and ``pruning.png`` into ``out``; the default arm must be among the measurements."""
    records = Records(measurements)
    counts = {record["images"] for record in measurements}
    images = MAIN_IMAGES if MAIN_IMAGES in counts else min(counts)
    sections = [
        _heading(records, environment),
        f"## Against the bounds, {images} images",
        "The bounds are ResNet-50's. Where images are small, solving the layers costs more than all forward passes:\n"
        "its time depends on the weights alone.",
        _judged(records, images),
        f"## {images} images",
        _measured(records, images),
        "![time against images and layers](pruning.png)",
        "## Time against images",
        _by_images(records),
        "## Time against layers",
        _by_layers(records),
    ]
    write_text(out / "README.md", "\n\n".join(sections) + "\n")
    draw(records, out / "pruning.png")


def _heading(records: Records, environment: dict[str, Any]) -> str:
    versions = {name: version for record in records.all for name, version in record["versions"].items()}
    threads = sorted({record["threads"] for record in records.all})
    return (
        "# Pruning, measured\n"
        f"{environment['cpu']}, {environment['cores']} cores, {environment['memory_bytes'] / GIB:.0f} GiB; "
        f"Python {environment['python']}, {', '.join(f'{name} {version}' for name, version in versions.items())}; "
        f"{', '.join(map(str, threads))} threads.\n\n"
        "Medians, with (smallest … largest) where there were repetitions. Ratios are against the dense forward pass\n"
        "over the same images, timed right before and right after in the same process: `model(batch)` as it is, and\n"
        "once more with everything in channels_last. `make bench-pruning` wrote this page from `measurements.jsonl`;\n"
        "[what the arms do](../README.md)."
    )


def _judged(records: Records, images: int) -> str:
    """Compare the medians with the bounds."""
    models = list(dict.fromkeys(model for model, _, count in records.groups if count == images))

    def ratio(arm: str, layout: str = "default") -> Callable[[str], float]:
        return lambda model: records.ratio(model, arm, images, layout)

    def against(arm: str, other: str) -> Callable[[str], float]:
        return lambda model: ratio(arm)(model) / ratio(other)(model)

    claims = [
        ("default ÷ dense forward", 5, ratio("default")),
        ("default ÷ dense forward, channels_last", 5, ratio("default", "channels_last")),
        ("plain ÷ dense forward", 3, ratio("plain")),
        ("plain ÷ dense forward, channels_last", 3, ratio("plain", "channels_last")),
        ("default ÷ straightforward", 0.25, against("default", "straightforward")),
        ("plain ÷ Model Optimizer", 1, against("plain", "modelopt")),
        ("default, worst doubling of images", 2.2, lambda model: _worst_doubling(records, model)),
    ]
    rows = [
        [claim, f"≤ {bound:g}", *(_verdict(value(m), bound if m == _BOUNDED else math.inf) for m in models)]
        for claim, bound, value in claims
    ]
    return _table(["", "bound", *models], rows)


def _measured(records: Records, images: int) -> str:
    titles = ["seconds", "÷ forward", "÷ channels_last", "CPU seconds", "peak GiB", "GiB before"]
    rows = [
        [
            model,
            NAMES[arm],
            f"{found[0]['layers_2_4']} of {found[0]['layers']}" if found[0]["layers"] else "",
            _spread(record["seconds"] for record in found),
            _spread(forward_ratio(record, "default") for record in found),
            _spread(forward_ratio(record, "channels_last") for record in found),
            f"{median(record['cpu_seconds'] for record in found):.1f}",
            f"{max(record['peak_bytes'] for record in found) / GIB:.2f}",
            f"{max(record['resident_before_bytes'] for record in found) / GIB:.2f}",
        ]
        for (model, arm, count), found in records.groups.items()
        if count == images
    ]
    return _table(["network", "arm", "2:4 along C", *titles], rows)


def _by_images(records: Records) -> str:
    model = records.widest()
    rows = [
        [str(images), _number(records.seconds(model, "default", images)), _number(records.forward(model, images))]
        for images in records.images(model)
    ]
    return _table([f"images ({model})", "default, s", "dense forward, s"], rows)


def _by_layers(records: Records) -> str:
    images, depths = records.depths()
    arms = ("default", "plain", "straightforward")
    rows = [
        [
            model,
            str(layers),
            _number(records.forward(model, images)),
            *(_number(records.seconds(model, arm, images)) for arm in arms),
        ]
        for model, layers in depths.items()
    ]
    titles = [f"network ({images} images)", "layers pruned", "dense forward, s", *(f"{arm}, s" for arm in arms)]
    return _table(titles, rows)


def _worst_doubling(records: Records, model: str) -> float:
    times = {images: records.seconds(model, "default", images) for images in records.images(model)}
    return max((times[2 * n] / times[n] for n in times if 2 * n in times), default=nan)


def _verdict(value: float, bound: float) -> str:
    mark = "" if bound == math.inf else " ✓" if value <= bound else " ✗"
    return _number(value) and f"{value:.2f}{mark}"


def _number(value: float) -> str:
    return "" if isnan(value) else f"{value:.2f}"


def _spread(values: Iterable[float]) -> str:
    found = sorted(values)
    text = f"{median(found):.2f}"
    return text if len(found) == 1 else f"{text} ({found[0]:.2f} … {found[-1]:.2f})"


def _table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
