"""The research project's tables beside ours, from the committed raw results: ``python -m benchmarks.results_page``.

``benchmarks/results/measure.sh`` makes those from nothing. A table whose raw results are not there is named as missing.
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
MOST_LOST, MOST_LOST_TUNED = 0.2, 0.1  # percentage points
NAMES = {"simple_cnn": "SimpleCNN", "cifar_cnn": "CIFARCNN", "resnet18": "ResNet-18", "vgg16": "VGG-16"}
LEAST_BASELINE = {"simple_cnn": 91.0, "cifar_cnn": 91.5, "resnet18": 93.0, "vgg16": 92.5}  # on two cores
# The research project's own reports (2025-12): dense, magnitude, and its SparseGPT, in two reports or in one.
SEED_TRAINED = {
    "simple_cnn": ("98.38 (MNIST)", "97.33", "98.20"),
    "cifar_cnn": ("78.15", "45.48", "64.64, 69.25"),
    "resnet18": ("85.22", "20.75", "46.17, 42.58"),
    "vgg16": ("85.74", "31.16", "67.91, 68.31"),
}
SEED_EARLY = {
    "cifar_cnn": ("63.18", "19.00", "48.31"),
    "resnet18": ("79.45", "20.80", "34.27"),
    "vgg16": ("80.40", "22.52", "38.20"),
}

WAYS = dict(
    zip(METHODS, ("magnitude", "research project's", "SparseGPT as published", "balanced", "best"), strict=True)
)

Row = dict[str, Any]


def main() -> None:
    """Write the page and its pictures."""
    layers = [row for path in _of_networks(RAW, "layers.csv") for row in read_layers(path)]
    for name in TABLES:
        if rows := _all_patterns(RAW) if name == "patterns" else _rows(RAW, name):
            draw(PICTURES / name, rows, layers if name == "two-four" else [])
    (PICTURES / "samples" / "sparsity.svg").unlink(missing_ok=True)  # what two-four's shows
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
    return """# Results: the research project's questions, asked again
Fashion-MNIST, 60,000 training and 10,000 test images. CIFAR-10 is not at hand here, so accuracies cannot be compared
across the two projects; what pruning takes from them can. No retraining unless a table says so. Figures are on all test
images, means over draws of calibration images, with (smallest … largest) where several were made. *Disagrees* are
images of another class than the dense network gives them; KL is from the dense network's distribution. *Research
project's* is its SparseGPT as it was, run here on the same networks, with its wrong axis and its wrong update.
`make results` made the page from [raw results](../benchmarks/results), which `benchmarks/results/measure.sh` makes from
nothing."""


def _baselines(raw: Path) -> str:
    cells = []
    for name, least in LEAST_BASELINE.items():
        if (path := raw / name / "train.json").exists():
            # Each training but the first began with the weights of the one before.
            trainings = [read_json(file) for file in (*sorted(path.parent.glob("train-before*.json")), path)]
            epochs = " + ".join(str(len(told["history"])) for told in trainings)
            minutes = sum(epoch["seconds"] for told in trainings for epoch in told["history"]) / 60
            top1 = trainings[-1]["evaluation"]["top1"]
            met = "✓" if top1 >= least else "✗"
            figures = [epochs, f"{minutes:.0f}", f"{top1:.2f}", f"{least:.1f} {met}"]
            cells.append([NAMES[name], *figures])
    text = (
        "Trained by `configs/*-fashion-mnist.yaml` on one core, beside other work. A sum of epochs is not what the "
        "configuration says: each training began with the weights of the one before, the last two with [more weight "
        "decay](quality.md) and on two cores."
    )
    columns = ["network", "epochs", "minutes", "top-1, %", "at least"]
    return "\n\n".join(["## Baselines", text, _table(columns, cells)])


def _trained(rows: Sequence[Row]) -> str:
    lines = ["## 2:4 on trained networks", _seed_table(SEED_TRAINED), _ours(rows)]
    lost = {
        name: mean(row["difference"] for row in own) for name in NAMES if (own := _of(rows, name, "balanced", "2:4"))
    }
    if lost:
        verdicts = (
            f"{NAMES[name]} {change:+.2f} {'✓' if change >= -MOST_LOST else '✗'}" for name, change in lost.items()
        )
        lines += [
            f"A default run is to lose {MOST_LOST} points at most: {', '.join(verdicts)}.",
            "The layers' errors below are on the calibration images: of balanced and best against the dense network's "
            "outputs, what earlier layers lost included; of the others only what the layer itself adds. So they "
            "compare layers; the tables on test images compare ways.",
        ]
    return "\n\n".join([*lines, *_pictures("two-four", rows)])


def _early(rows: Sequence[Row]) -> str:
    text = (
        "The research project read its tables so: the better a network has converged, the better a second-order method "
        "keeps it, and residual networks suffer. Here each network was trained for one epoch."
    )
    parts = ["## 2:4 on undertrained networks", text, _seed_table(SEED_EARLY), _ours(rows)]
    return "\n\n".join([*parts, *_pictures("training", rows)])


def _all_patterns(raw: Path) -> list[Row]:
    """The other patterns' rows after those at 2:4, for networks that have both."""
    others = _rows(raw, "patterns")
    names = {row["checkpoint"] for row in others}
    return [*(row for row in _rows(raw, "two-four") if row["checkpoint"] in names), *others]


def _patterns(rows: Sequence[Row]) -> str:
    parts = ["## All patterns", "A fraction is unstructured. Points of top-1 lost or won:"]
    parts += [_by_pattern(rows, "difference", "{:+.2f}"), "Images of another class, %:"]
    parts += [_by_pattern(rows, "disagreement", "{:.2f}"), "KL:", _by_pattern(rows, "kl", "{:.1e}")]
    return "\n\n".join([*parts, *_pictures("patterns", rows)])


def _by_pattern(rows: Sequence[Row], key: str, form: str) -> str:
    patterns = list(dict.fromkeys(row["pattern"] for row in rows))
    cells = [
        [NAMES[name], title, *(_spread(_of(rows, name, method, pattern), key, form) for pattern in patterns)]
        for name in NAMES
        for method, title in WAYS.items()
        if any(_of(rows, name, method, pattern) for pattern in patterns)
    ]
    return _table(["network", "way", *patterns], cells)


def _samples(rows: Sequence[Row]) -> str:
    sizes = sorted({row["samples"] for row in rows if row["samples"]})
    cells = [
        [
            NAMES[name],
            title,
            *(_spread([row for row in own if row["samples"] == size], "kl", "{:.1e}") for size in sizes),
        ]
        for name in NAMES
        for method, title in WAYS.items()
        if (own := _of(rows, name, method, "2:4"))
    ]
    parts = ["## Calibration images", "KL at 2:4, by how many images calibrate."]
    return "\n\n".join([*parts, _table(["network", "way", *map(str, sizes)], cells), *_pictures("samples", rows)])


def _tuned(raw: Path) -> str:
    cells: list[list[str]] = []
    for name in NAMES:
        if told := [read_json(path) for path in sorted(raw.glob(f"{name}/finetune-*.json"))]:
            own = [each["evaluation"] for each in told]
            taken = f"{sum(each['best_epoch'] > 0 for each in told)} of {len(told)}"
            lost = [each["after"]["top1"] - each["dense"]["top1"] for each in own]
            arms = [_summed([each[arm]["top1"] for each in own]) for arm in ("dense", "before", "after")]
            cells.append([NAMES[name], *arms, taken, _summed(lost, "{:+.2f}"), _verdict(mean(lost), MOST_LOST_TUNED)])
    text = (
        "Pruned with 2,048 images, then one epoch of `finetune` by its configuration: the zeros held, "
        "learning from the dense network; an epoch that is no better on held-out images is not taken. "
        f"The network is to end at most {MOST_LOST_TUNED} points below the dense one."
    )
    columns = ["network", "dense", "2:4", "2:4, tuned", "epochs taken", "difference", f"≥ −{MOST_LOST_TUNED}"]
    return "\n\n".join(["## 2:4 and one epoch of fine-tuning", text, _table(columns, cells)])


def _ablation() -> str:
    parts, mistakes = _gains(ABLATION), _gains(ABLATION / "axis-and-update")
    return "\n\n".join(
        [
            "## What is explained by what",
            f"ResNet-18, {parts}",
            "Each row adds a part: the dense target, the refit and ADMM's masks do most of it. "
            "[More of it](../benchmarks/accuracy/results/README.md).",
            "The research project's two mistakes, one by one, on the network of the tables above: the update costs "
            "accuracy, the axis costs the sparse kernels. In all four its masks are chosen 128 columns at a time, and "
            f"its classifier is pruned. Here {mistakes}",
        ]
    )


def _gains(folder: Path) -> str:
    """The table at 2:4 of one of :mod:`benchmarks.accuracy`'s folders, and what it was measured on."""
    about = read_json(folder / "about.json")
    records = [json.loads(line) for line in (folder / "measurements.jsonl").read_text().splitlines()]
    _, body = summarise(about, [record for record in records if record["pattern"] == "2:4"]).split("## 2:4", 1)
    return (
        f"dense top-1 {about['top1']:.2f} %, {about['samples']} calibration images, {about['judged']} test images:\n\n"
        + body.strip()
    )


def _seed_table(seed: dict[str, tuple[str, str, str]]) -> str:
    cells = [[NAMES[name], *figures] for name, figures in seed.items()]
    return "Its own figures, on CIFAR-10:\n\n" + _table(["network", "dense", "magnitude", "its SparseGPT"], cells)


def _ours(rows: Sequence[Row]) -> str:
    cells = []
    for name in NAMES:
        for method, title in WAYS.items():
            if own := _of(rows, name, method, "2:4"):
                figures = [_spread(own, "top1"), _spread(own, "difference", "{:+.2f}"), _spread(own, "disagreement")]
                dense = f"{own[0]['dense_top1']:.2f}"
                cells.append([NAMES[name], dense, title, *figures, _spread(own, "kl", "{:.1e}")])
    columns = ["network", "dense", "way", "top-1, %", "difference", "disagrees, %", "KL"]
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
    """The files of one name that networks have, in the networks' order."""
    return [path for network in NAMES if (path := raw / network / name).exists()]


def _of(rows: Sequence[Row], name: str, method: str, pattern: str) -> list[Row]:
    wanted = (name, method, pattern)
    return [
        row for row in rows if (row["checkpoint"].removesuffix("-1-epoch"), row["method"], row["pattern"]) == wanted
    ]


if __name__ == "__main__":
    main()
