"""The measurements as a page."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks.measurements import Record, read_records
from benchmarks.onnx.jobs import ARMS, DOORS, OTHER_ARMS
from sparsegpt_core.files import read_json, write_text

__all__ = ["summarise"]

GIB = 2**30
MAX_RATIO = 1.5
TITLES = {
    "pytorch": "PyTorch",
    "folded": "ONNX, batch norms folded",
    "unfolded": "ONNX, batch norms as operators",
    "other kernels": "PyTorch without oneDNN",
}


def summarise(out: Path) -> None:
    """Write ``README.md`` next to the raw results."""
    machines = read_json(out / "environment.json")
    sections = [
        "# ONNX files, measured\n"
        "`make bench-onnx` wrote this page from the raw results next to it; "
        "[what is measured](../../onnx/README.md).\n\n"
        + "\n".join(f"* {part}: {_machine(machine)}" for part, machine in machines.items()),
        "## The door for ONNX files against PyTorch's\n"
        "Medians, with (smallest … largest) where there were repetitions. A ratio compares the runs of one round. "
        f"It may be {MAX_RATIO} at most. CPU seconds depend less on other work on the machine.",
        _doors(read_records(out / "doors.jsonl")),
        "## Against other tools\n"
        "The output error is ‖dense − pruned‖² / ‖dense‖² on 64 photos that no tool has seen. *Disagrees* is the share "
        "of positions with another class. *2:4* counts the weights that `verify` finds sparse on TensorRT's axis. "
        "*Zeros* is their share in all weights. "
        "A tool that does not find weights in Constant nodes leaves such a file as it was.",
        _files([*read_records(out / "files.jsonl"), *read_records(out / "others.jsonl")]),
        "## What runtimes take\n"
        "The files of `balanced`, converted by us. ONNX Runtime ran each of them; the number is the difference "
        "from the imported FP32 file, relative to its outputs. TensorRT-RTX built engines for compute "
        "capability 8.6, without a GPU; it does not say which kernels are sparse.",
        _acceptance(read_records(out / "acceptance.jsonl")),
    ]
    write_text(out / "README.md", "\n\n".join(sections) + "\n")


def _machine(here: Record) -> str:
    versions = ", ".join(f"{name} {here['versions'][name]}" for name in ("torch", "onnx", "onnxruntime"))
    machine = f"{here['cpu']}, {here['cores']} cores, {here['memory_bytes'] / GIB:.0f} GiB"
    return f"{machine}; Python {here['python']}, {versions}"


def _doors(records: list[Record]) -> str:
    rows = []
    for network in dict.fromkeys(record["network"] for record in records):
        own = [record for record in records if record["network"] == network]
        base = {record["round"]: record for record in own if record["door"] == "pytorch"}
        for door in DOORS:
            found = [record for record in own if record["door"] == door]
            if not found:
                continue
            pairs = [(each, base[each["round"]]) for each in found if each["round"] in base and door != "pytorch"]
            first = found[0]
            compared = "different_mask_entries" in first
            rows.append(
                [
                    network,
                    str(first["images"]),
                    TITLES[door],
                    str(first["layers"]),
                    _spread([each["seconds"] for each in found], ".1f"),
                    _spread([each["seconds"] / other["seconds"] for each, other in pairs]),
                    _spread([each["cpu_seconds"] / other["cpu_seconds"] for each, other in pairs]),
                    f"{max(each['opening_seconds'] for each in found):.1f}",
                    f"{max(each['peak_bytes'] for each in found) / GIB:.2f}",
                    f"{first['different_mask_entries']} of {first['entries']:,}" if compared else "",
                    f"{first['largest_weight_error']:.1e}" if compared else "",
                ]
            )
    titles = ["network", "images", "door", "layers", "seconds", "÷ PyTorch", "CPU ÷ PyTorch", "opening, s", "peak GiB"]
    return _table([*titles, "different mask entries", "largest weight difference"], rows)


def _files(records: list[Record]) -> str:
    rows = []
    for file in dict.fromkeys(record["file"] for record in records):
        for arm in (*ARMS, *OTHER_ARMS):
            for each in records:
                if (each["file"], each["arm"]) == (file, arm) and "error" in each:
                    rows.append([file, arm, each["error"], *[""] * 5])
                elif (each["file"], each["arm"]) == (file, arm):
                    rows.append(
                        [
                            file,
                            arm,
                            f"{each['sparse_layers']} of {each['layers']}",
                            f"{100 * each['zeros']:.0f} %",
                            f"{each['output_error']:.2g}",
                            f"{each['kl']:.2g}" if "kl" in each else "",
                            f"{each['disagreement']:.1f} %" if "disagreement" in each else "",
                            f"{each['seconds']:.0f}" if each["seconds"] is not None else "",
                        ]
                    )
    return _table(["file", "tool", "2:4", "zeros", "output error", "KL", "disagrees", "seconds"], rows)


def _acceptance(records: list[Record]) -> str:
    rows = []
    for record in records:
        for precision, found in record.items():
            if precision == "file":
                continue
            taken = f"{found['engine_bytes'] / 2**20:.1f} MiB" if "engine_bytes" in found else "✗"
            parity = f"✓ {found['parity']:.1e}" if "parity" in found else "✗"
            sparse = str(found.get("sparse_layers", ""))
            rows.append([record["file"], precision.upper(), sparse, parity, taken, found.get("error", "")])
    return _table(["file", "precision", "2:4", "ONNX Runtime", "TensorRT-RTX's engine", "error"], rows)


def _spread(values: list[float], form: str = ".2f") -> str:
    if not values:
        return ""
    found = sorted(values)
    text = f"{median(found):{form}}"
    return text if len(found) == 1 else f"{text} ({found[0]:{form}} … {found[-1]:{form}})"


def _table(titles: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "*Not measured yet.*"
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, ["---"] * len(titles), *rows])
