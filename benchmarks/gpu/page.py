"""Writes docs/gpu.md from the raw results: ``python -m benchmarks.gpu.page RESULTS [PAGE]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsegpt_core.files import read_json, write_text

PAGE = Path(__file__).parent.parent.parent / "docs" / "gpu.md"

MIN_TOP1 = {"simple_cnn": 92.0, "cifar_cnn": 92.5, "resnet18": 94.0, "vgg16": 93.5}
"""The top-1 that a baseline must reach on a GPU, in percent."""

Record = dict[str, Any]


def page(results: Path) -> str:
    """Return the page, in Markdown. It says which parts have no results."""
    engines, questions, providers = (_all(results, part) for part in ("engines", "question", "provider"))
    accuracy, pruning = (
        _all(results, "accuracy"),
        {path.stem: read_json(path) for path in results.glob("pruning-*.json")},
    )
    machine = _machine([*engines, *questions, *providers, *accuracy, *pruning.values()])
    baselines = [(name, read_json(path)) for name in MIN_TOP1 if (path := results / f"baseline-{name}.json").exists()]
    sections = [
        f"# On a GPU\nMade by `benchmarks/gpu/run.sh` on {machine}.",
        "## Engines\nA: dense weights, no flag; B: sparse weights, no flag; C: sparse weights, SPARSE_WEIGHTS. "
        "A/C is what a user gains, B/C what the kernels give; in brackets its confidence interval.\n\n"
        + _table(
            ("network", "precision", "batch", "A, ms", "A/C", "B/C", "eligible", "chosen", "verdict"),
            map(_engine, sorted(engines, key=lambda each: (each["dense"], each["batch"]))),
        ),
        "## What the builder does with single layers\n"
        + _table(
            ("stack of 3×3, 512 channels", "expected", "eligible", "chosen", "A/C", "verdict"),
            map(_question, questions),
        ),
        "## ONNX Runtime's TensorRT provider\nThe same arms, built by ONNX Runtime.\n\n"
        + _table(("network", "precision", "batch", "A, ms", "A/C", "B/C", "verdict"), map(_provider, providers)),
        "## Accuracy through the engines\nResNet-18, Fashion-MNIST, all 10,000 test images.\n\n"
        + _table(("precision", "arm", "top-1, %", "PyTorch, %"), [row for each in accuracy for row in _accuracy(each)]),
        "## Baselines\nTrained on Fashion-MNIST by their configurations, for longer; all 10,000 test images.\n\n"
        + _table(("network", "epochs", "seconds", "top-1, %", "at least"), [_baseline(*each) for each in baselines]),
        "## Pruning on the GPU\n" + _pruning(pruning),
        "## cuSPARSELt through PyTorch\n" + _semi_structured(pruning.get("pruning-cusparselt")),
    ]
    return "\n\n".join(sections) + "\n"


def _baseline(name: str, told: Record) -> tuple[str, ...]:
    top1 = told["evaluation"]["top1"]
    least = f"{MIN_TOP1[name]:.1f} {'✓' if top1 >= MIN_TOP1[name] else '✗'}"
    return (name, str(len(told["history"])), f"{told['seconds']:.0f}", f"{top1:.2f}", least)


def _all(results: Path, part: str) -> list[Record]:
    return [read_json(path) for path in sorted(results.glob(f"{part}-*.json"))]


def _machine(records: Sequence[Record]) -> str:
    for record in records:
        environment = record.get("environment")
        if environment and environment.get("gpu"):
            gpu, versions = environment["gpu"], environment["versions"]
            return f"an {gpu['name']}, driver {gpu['driver']}, TensorRT {versions.get('tensorrt')}"
    return "no GPU yet: nothing below is measured"


def _engine(record: Record) -> tuple[str, ...]:
    name, _, precision, _ = record["dense"].split(".")
    own = (name, precision, str(record["batch"]))
    if "error" in record:
        return (*own, "", "", "", "", "", record["error"])
    explanation = record["explanation"]
    milliseconds = record["latency"]["arms"]["A"]["p50_ms"]
    counts = (explanation["eligible_layers"], explanation["chosen_layers"])
    ratios = (_ratio(record["speedup"][name]) for name in ("A_to_C", "B_to_C"))
    return (*own, f"{milliseconds:.3f}", *ratios, *map(_known, counts), explanation["verdict"])


def _question(record: Record) -> tuple[str, ...]:
    own = (record["question"], record["expected"])
    if "error" in record:
        return (*own, "", "", "", record["error"])
    explanation = record["explanation"]
    counts = map(_known, (explanation["eligible_layers"], explanation["chosen_layers"]))
    return (*own, *counts, _ratio(record["speedup"]["A_to_C"]), explanation["verdict"])


def _provider(record: Record) -> tuple[str, ...]:
    name, _, precision, _ = record["dense"].split(".")
    own = (name, precision, str(record["batch"]))
    if "error" in record:
        return (*own, "", "", "", record["error"])
    ratios = (_ratio(record["speedup"][name]) for name in ("A_to_C", "B_to_C"))
    return (*own, f"{record['latency']['A']['p50_ms']:.3f}", *ratios, record["verdict"])


def _accuracy(record: Record) -> list[tuple[str, ...]]:
    if "error" in record:
        return [("", record["error"], "", "")]
    rows: list[tuple[str, ...]] = []
    for name, arm in record["accuracy"].items():
        if name == "difference":
            continue
        weights = "dense" if name in ("A", "dense") else "sparse"
        rows.append((record["precision"], name, f"{arm['top1']:.2f}", f"{record['pytorch_top1'][weights]:.2f}"))
    return rows


def _pruning(pruning: dict[str, Record]) -> str:
    whole, both, rank = (pruning.get(f"pruning-{name}") for name in ("resnet50", "agreement", "nccl"))
    lines = []
    if whole:
        own = whole["result"]
        lines.append(
            f"* ResNet-50, {own['images']} images at 224²: {own['seconds']:.1f} s, {own['peak_bytes'] / 2**30:.1f} GiB."
        )
    if both:
        own = both["result"]
        lines.append(
            f"* Against the CPU with {own['cpu']['images']} images: {100 * own['equal_mask_share']:.3f} % of the mask "
            f"is the same, the weights are {own['weight_distance']:.1e} apart; {own['cpu']['seconds']:.1f} s there, "
            f"{own['gpu']['seconds']:.1f} s here."
        )
    if rank:
        own = rank["result"]
        lines.append(
            f"* {own['processes']} processes with NCCL: {own['shared']['seconds']:.1f} s, one alone "
            f"{own['single']['seconds']:.1f} s; {100 * own['equal_mask_share']:.3f} % of the mask is the same."
        )
    return "\n".join(lines) or "*Not measured yet.*"


def _semi_structured(record: Record | None) -> str:
    rows = []
    for each in record["result"] if record else ():
        if "error" in each:
            rows.append((each["layer"], each["error"], ""))
        else:
            ratio = each["dense_over_sparse"]
            spread = f"{ratio['median']:.2f} ({ratio['least']:.2f} … {ratio['most']:.2f})"
            rows.append((each["layer"], f"{each['relative_error']:.1e}", spread))
    return _table(("layer, FP16", "difference to dense", "dense time ÷ sparse time"), rows)


def _table(columns: Sequence[str], rows: Any) -> str:
    cells = [*rows]
    if not cells:
        return "*Not measured yet.*"
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *cells])


def _ratio(ratio: Record) -> str:
    return f"{ratio['ratio']:.3f} ({ratio['low']:.3f} … {ratio['high']:.3f})"


def _known(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.page", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    options = parser.parse_args()
    write_text(options.page, page(options.results))


if __name__ == "__main__":
    main()
