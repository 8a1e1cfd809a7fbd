"""The research project's tables next to ours, from the committed raw results: ``python -m benchmarks.results_page``.

``benchmarks/results/measure.sh`` measures the raw results. The page names a table whose raw results are missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.accuracy.summary import summarise
from sparsegpt_cli.sweep.methods import METHODS
from sparsegpt_cli.sweep.pictures import draw
from sparsegpt_cli.sweep.tables import read_layers, read_results
from sparsegpt_core.files import read_json, write_text

ROOT = Path(__file__).parent.parent
RAW, ABLATION = ROOT / "benchmarks" / "results", ROOT / "benchmarks" / "accuracy" / "results"
PAGE, PICTURES = ROOT / "docs" / "results.md", ROOT / "docs" / "results"

TABLES = ("two-four", "training", "patterns", "samples")
MAX_LOST_POINTS, MAX_LOST_POINTS_TUNED = 0.2, 0.1
NAMES = {"simple_cnn": "SimpleCNN", "cifar_cnn": "CIFARCNN", "resnet18": "ResNet-18", "vgg16": "VGG-16"}
MIN_BASELINE_TOP1 = {"simple_cnn": 91.0, "cifar_cnn": 91.5, "resnet18": 93.0, "vgg16": 92.5}  # on two cores
# The research project's own reports (2025-12): dense, magnitude, and its SparseGPT, in two reports or in one.
PROJECT_TRAINED = {
    "simple_cnn": ("98.38 (MNIST)", "97.33", "98.20"),
    "cifar_cnn": ("78.15", "45.48", "64.64, 69.25"),
    "resnet18": ("85.22", "20.75", "46.17, 42.58"),
    "vgg16": ("85.74", "31.16", "67.91, 68.31"),
}
PROJECT_EARLY = {
    "cifar_cnn": ("63.18", "19.00", "48.31"),
    "resnet18": ("79.45", "20.80", "34.27"),
    "vgg16": ("80.40", "22.52", "38.20"),
}

TITLES = dict(
    zip(METHODS, ("magnitude", "research project's", "SparseGPT as published", "balanced", "best"), strict=True)
)

Row = dict[str, Any]


def main() -> None:
    """Write the page and its pictures."""
    layers = [row for path in _of_networks(RAW, "layers.csv") for row in read_layers(path)]
    for name in TABLES:
        if rows := _all_patterns(RAW) if name == "patterns" else _rows(RAW, name):
            draw(PICTURES / name, rows, layers if name == "two-four" else [])
    (PICTURES / "samples" / "sparsity.svg").unlink(missing_ok=True)  # the same picture as in two-four
    write_text(PAGE, page(RAW))
    print(PAGE.relative_to(ROOT))


def page(raw: Path) -> str:
    """Return the page, in Markdown, for the raw results in a folder."""
    sections = [
        _intro(),
        _baselines(raw),
        _trained(_rows(raw, "two-four")),
        _early(_rows(raw, "training")),
        _patterns(_all_patterns(raw)),
        _samples(_rows(raw, "samples")),
        _tuned(raw),
        _ablation(),
    ]
    return "\n\n".join(sections) + "\n"


def _intro() -> str:
    return """# Results: the research project's experiments, repeated
The data set is Fashion-MNIST, with 60,000 training and 10,000 test images. The research project used CIFAR-10, so the
accuracies of the two projects cannot be compared; the losses by pruning can. Nothing is retrained unless a table says
so. Numbers are for all test images. They are means over draws of calibration images, with (smallest … largest) if there
are several draws. *Disagrees* is the share of images with another class than the dense network's. KL is measured from
the dense network's distribution. *Research project's* is its SparseGPT, run here on the same networks, with its wrong
axis and its wrong update. `make results` wrote this page from the [raw results](../benchmarks/results), which
`benchmarks/results/measure.sh` measures."""


def _baselines(raw: Path) -> str:
    cells = []
    for name, least in MIN_BASELINE_TOP1.items():
        if (path := raw / name / "train.json").exists():
            # Each training except the first began with the weights of the one before.
            trainings = [read_json(file) for file in (*sorted(path.parent.glob("train-before*.json")), path)]
            epochs = " + ".join(str(len(told["history"])) for told in trainings)
            minutes = sum(epoch["seconds"] for told in trainings for epoch in told["history"]) / 60
            top1 = trainings[-1]["evaluation"]["top1"]
            met = "✓" if top1 >= least else "✗"
            figures = [epochs, f"{minutes:.0f}", f"{top1:.2f}", f"{least:.1f} {met}"]
            cells.append([NAMES[name], *figures])
    text = (
        "`configs/*-fashion-mnist.yaml` trained the networks on one core that also did other work. A sum of epochs "
        "means several trainings: each started from the weights of the one before. The last two used [more weight "
        "decay](quality.md) and two cores."
    )
    columns = ["network", "epochs", "minutes", "top-1, %", "at least"]
    return "\n\n".join(["## Baselines", text, _table(columns, cells)])


def _trained(rows: Sequence[Row]) -> str:
    lines = ["## 2:4 on trained networks", _project_table(PROJECT_TRAINED), _ours(rows)]
    lost = {
        name: mean(row["difference"] for row in own) for name in NAMES if (own := _of(rows, name, "balanced", "2:4"))
    }
    if lost:
        verdicts = (
            f"{NAMES[name]} {change:+.2f} {'✓' if change >= -MAX_LOST_POINTS else '✗'}" for name, change in lost.items()
        )
        lines += [
            f"A default run may lose {MAX_LOST_POINTS} points at most: {', '.join(verdicts)}.",
            "The layer errors below are for the calibration images. For balanced and best they are errors against the "
            "dense network's outputs and include the errors of earlier layers. For the other methods they are the "
            "errors that the layer itself adds. So the pictures compare layers; the tables compare methods.",
        ]
    return "\n\n".join([*lines, *_pictures("two-four", rows)])


def _early(rows: Sequence[Row]) -> str:
    text = (
        "The research project concluded that second-order pruning works better on networks that have converged, and "
        "that residual networks lose more. Here each network was trained for one epoch."
    )
    parts = ["## 2:4 on undertrained networks", text, _project_table(PROJECT_EARLY), _ours(rows)]
    return "\n\n".join([*parts, *_pictures("training", rows)])


def _all_patterns(raw: Path) -> list[Row]:
    """The other patterns' rows after those at 2:4, for networks that have both."""
    others = _rows(raw, "patterns")
    names = {row["checkpoint"] for row in others}
    return [*(row for row in _rows(raw, "two-four") if row["checkpoint"] in names), *others]


def _patterns(rows: Sequence[Row]) -> str:
    parts = ["## All patterns", "A fraction is an unstructured pattern. Change of top-1 in percentage points:"]
    parts += [_by_pattern(rows, "difference", "{:+.2f}"), "Images that change class, %:"]
    parts += [_by_pattern(rows, "disagreement", "{:.2f}"), "KL:", _by_pattern(rows, "kl", "{:.1e}")]
    return "\n\n".join([*parts, *_pictures("patterns", rows)])


def _by_pattern(rows: Sequence[Row], key: str, form: str) -> str:
    patterns = list(dict.fromkeys(row["pattern"] for row in rows))
    cells = [
        [NAMES[name], title, *(_spread(_of(rows, name, method, pattern), key, form) for pattern in patterns)]
        for name in NAMES
        for method, title in TITLES.items()
        if any(_of(rows, name, method, pattern) for pattern in patterns)
    ]
    return _table(["network", "method", *patterns], cells)


def _samples(rows: Sequence[Row]) -> str:
    sizes = sorted({row["samples"] for row in rows if row["samples"]})
    cells = [
        [
            NAMES[name],
            title,
            *(_spread([row for row in own if row["samples"] == size], "kl", "{:.1e}") for size in sizes),
        ]
        for name in NAMES
        for method, title in TITLES.items()
        if (own := _of(rows, name, method, "2:4"))
    ]
    parts = ["## Calibration images", "KL at 2:4, by the number of calibration images."]
    return "\n\n".join([*parts, _table(["network", "method", *map(str, sizes)], cells), *_pictures("samples", rows)])


def _tuned(raw: Path) -> str:
    cells: list[list[str]] = []
    for name in NAMES:
        if told := [read_json(path) for path in sorted(raw.glob(f"{name}/finetune-*.json"))]:
            own = [each["evaluation"] for each in told]
            taken = f"{sum(each['best_epoch'] > 0 for each in told)} of {len(told)}"
            lost = [each["after"]["top1"] - each["dense"]["top1"] for each in own]
            arms = [_summed([each[arm]["top1"] for each in own]) for arm in ("dense", "before", "after")]
            cells.append(
                [NAMES[name], *arms, taken, _summed(lost, "{:+.2f}"), _verdict(mean(lost), MAX_LOST_POINTS_TUNED)]
            )
    text = (
        "The networks were pruned with 2,048 images. `finetune` then ran one epoch with their configuration: the zeros "
        "are fixed, and the dense network is the teacher. An epoch that is not better on held-out images is discarded. "
        f"The network may end at most {MAX_LOST_POINTS_TUNED} points below the dense one."
    )
    columns = ["network", "dense", "2:4", "2:4, tuned", "epochs kept", "difference", f"≥ −{MAX_LOST_POINTS_TUNED}"]
    return "\n\n".join(["## 2:4 and one epoch of fine-tuning", text, _table(columns, cells)])


def _ablation() -> str:
    parts, mistakes = _gains(ABLATION), _gains(ABLATION / "axis-and-update")
    return "\n\n".join(
        [
            "## What each part gains",
            f"ResNet-18, {parts}",
            "Each row adds a part. The dense target, the refit and ADMM's masks gain most. "
            "[All patterns](../benchmarks/accuracy/results/README.md).",
            "The next table separates the research project's two mistakes, on the network of the tables above. The "
            "wrong update costs accuracy; the wrong axis costs the sparse kernels. All four rows choose masks 128 "
            f"columns at a time and prune the classifier. Here {mistakes}",
        ]
    )


def _gains(folder: Path) -> str:
    """The 2:4 table of a result folder of :mod:`benchmarks.accuracy`, with its network and images."""
    about = read_json(folder / "about.json")
    records = [json.loads(line) for line in (folder / "measurements.jsonl").read_text().splitlines()]
    _, body = summarise(about, [record for record in records if record["pattern"] == "2:4"]).split("## 2:4", 1)
    return (
        f"dense top-1 {about['top1']:.2f} %, {about['samples']} calibration images, {about['judged']} test images:\n\n"
        + body.strip()
    )


def _project_table(numbers: dict[str, tuple[str, str, str]]) -> str:
    cells = [[NAMES[name], *figures] for name, figures in numbers.items()]
    return "The research project's own numbers, on CIFAR-10:\n\n" + _table(
        ["network", "dense", "magnitude", "its SparseGPT"], cells
    )


def _ours(rows: Sequence[Row]) -> str:
    cells = []
    for name in NAMES:
        for method, title in TITLES.items():
            if own := _of(rows, name, method, "2:4"):
                figures = [_spread(own, "top1"), _spread(own, "difference", "{:+.2f}"), _spread(own, "disagreement")]
                dense = f"{own[0]['dense_top1']:.2f}"
                cells.append([NAMES[name], dense, title, *figures, _spread(own, "kl", "{:.1e}")])
    columns = ["network", "dense", "method", "top-1, %", "difference", "disagrees, %", "KL"]
    return "Here:\n\n" + _table(columns, cells)


def _table(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    rows = [*cells]
    if not rows:
        return "*Not measured yet.*"
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *rows])


def _pictures(table: str, rows: Sequence[Row]) -> list[str]:
    names = sorted(path.name for path in (PICTURES / table).glob("*.svg")) if rows else []
    return [f"![{Path(name).stem}](results/{table}/{name})" for name in names]


def _spread(rows: Sequence[Row], key: str, form: str = "{:.2f}") -> str:
    return _summed([row[key] for row in rows], form)


def _summed(values: Sequence[float], form: str = "{:.2f}") -> str:
    if not values:
        return "–"
    spread = f" ({form.format(min(values))} … {form.format(max(values))})" if len(values) > 1 else ""
    return form.format(mean(values)) + spread


def _verdict(change: float, allowed: float) -> str:
    return "✓" if change >= -allowed else "✗"


def _rows(raw: Path, table: str) -> list[Row]:
    return [row for path in _of_networks(raw, f"{table}.csv") for row in read_results(path)]


def _of_networks(raw: Path, name: str) -> list[Path]:
    """The existing files of this name, in the order of the networks."""
    return [path for network in NAMES if (path := raw / network / name).exists()]


def _of(rows: Sequence[Row], name: str, method: str, pattern: str) -> list[Row]:
    wanted = (name, method, pattern)
    return [
        row for row in rows if (row["checkpoint"].removesuffix("-1-epoch"), row["method"], row["pattern"]) == wanted
    ]


if __name__ == "__main__":
    main()
