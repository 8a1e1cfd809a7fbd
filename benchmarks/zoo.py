"""Sparse networks ready to be uploaded: ``make zoo FILES=FOLDER``.

Prunes and exports each trained network of :mod:`benchmarks.real_networks.networks` whose file is in the folder, by the
command line and with its defaults. Each gets a folder with checkpoint, ONNX files, report and a card; ``README.md``
next to them has a table. A network whose ``prune.json`` is there is not pruned again. Nothing of it is committed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measurements import ROOT
from benchmarks.onnx.inputs import read_photos
from benchmarks.pages import table_line
from benchmarks.real_networks.networks import NETWORKS, RealNetwork
from sparsegpt_core.files import read_json, sha256, write_text

_CODE = """
from pathlib import Path
from benchmarks.real_networks.networks import NETWORKS

def network():
    return NETWORKS[{name!r}].load(Path({path!r}))
"""
_CARD = """# {title}, 2:4 sparse
{pruned} of {layers} layers are 2:4 along the input channels, as TensorRT's sparse tensor cores read them. {verdict}

* Weights: `{file}`, SHA-256 `{digest}`. Licence: {licence}.
* Made by `sparsegpt-trt prune-export --samples {samples} --gpu {gpu} --int8`, {version}, with defaults otherwise.
* [Report](report.html)

{figures}

| file | bytes | SHA-256 |
| --- | --- | --- |
{files}
"""
_HEAD = ("network", "licence", "2:4 layers", "estimated speed-up", "against dense")


def main() -> int:
    """Make the zoo."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=Path, required=True, help="folder of networks and photos, as for real networks")
    parser.add_argument("--out", type=Path, default=Path("build/zoo"), help="folder of the zoo")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS], help="only these networks")
    parser.add_argument("--gpu", default="a100", help="the GPU that decides which layers pay")
    options = parser.parse_args()
    rows, files = [table_line(*_HEAD), table_line(*["---"] * len(_HEAD))], options.files.resolve()
    for name in options.networks:
        network, folder = NETWORKS[name], options.out.resolve() / name
        if not (files / network.file).exists():
            print(f"{name}: {network.file} is not in {files}")
            continue
        failure = None if (folder / "prune.json").exists() else _prune(name, files, folder, options.gpu)
        licence = _licence(files / network.file)
        if failure:
            rows.append(table_line(network.title, licence, "0", "", failure))
            continue
        run = read_json(folder / "prune.json")
        write_text(folder / "README.md", _card(network, run, files, folder, licence))
        pruned = sum(layer["status"] == "pruned" for layer in run["layers"])
        bound = run["prediction"].get("bound")
        gain = f"{bound:.3f}×" if bound else "unknown"
        rows.append(table_line(f"[{network.title}]({name}/README.md)", licence, pruned, gain, "; ".join(_figures(run))))
    write_text(options.out / "README.md", "\n".join(["# Sparse networks", *rows, ""]))
    print(options.out / "README.md")
    return 0


def _prune(name: str, files: Path, folder: Path, gpu: str) -> str | None:
    """Prune and export a network; return the error if there is one."""
    network = NETWORKS[name]
    with tempfile.TemporaryDirectory() as temporary:
        code, data = Path(temporary, "model.py"), {}
        code.write_text(_CODE.format(name=name, path=str(files / network.file)))
        for split, count in (("calib", network.samples), ("test", network.tested)):
            arrays: dict[str, Any] = {"images": read_photos(files, network.inputs, split, count)}
            if network.inputs.logits:
                with np.load(files / f"{split}.npz") as archive:
                    arrays["labels"] = archive["labels"][:count]
            data[split] = Path(temporary, f"{split}.npz")
            np.savez(data[split], **arrays)
        model = files / network.file if network.file.endswith(".onnx") else f"{code}:network"
        command = ["prune-export", "--model", model, "--data", f"npz:{data['calib']}", "--eval-data"]
        command += [f"npz:{data['test']}", "--mean", 0, "--std", 1, "--samples", network.samples, "--gpu", gpu]
        print(f"{name} ...", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "sparsegpt_cli", *map(str, command), "--int8", "--out", str(folder)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return (errors or [f"exit {done.returncode}"])[-1] if done.returncode else None


def _card(network: RealNetwork, run: Any, files: Path, folder: Path, licence: str) -> str:
    manifest = read_json(folder / "manifest.json")["files"]
    return _CARD.format(
        title=network.title,
        pruned=sum(layer["status"] == "pruned" for layer in run["layers"]),
        layers=len(run["layers"]),
        verdict=run["gains"]["verdict"],
        file=network.file,
        digest=sha256(files / network.file),
        licence=licence,
        samples=run["data"]["samples"],
        gpu=run["prediction"]["gpu"],
        version=run["tool"]["version"],
        figures="\n".join(f"* {figure}" for figure in _figures(run)),
        files="\n".join(table_line(name, each["bytes"], each["sha256"]) for name, each in manifest.items()),
    )


def _figures(run: Any) -> Iterable[str]:
    """The files against the dense FP32 one: accuracy, or else relative errors of the outputs."""
    if run["accuracy"]:
        dense = run["accuracy"]["dense"]
        for name in ("sparse", "sparse.int8", "dense.int8"):
            arm = run["accuracy"][name]
            top1 = f"top-1 {arm['top1']:.1f} % (dense {dense['top1']:.1f} %), " if arm["top1"] else ""
            yield f"{name}.onnx: {top1}{arm['disagreement']:.1f} % of {arm['samples']} photos change class"
    else:
        for name, errors in run["outputs"]["relative_errors"].items():
            yield f"{name}.onnx: relative error {', '.join(f'{error:.2g}' for error in errors.values())}"


def _licence(file: Path) -> str:
    """Return the licence that the package of a file names."""
    package = next(parent for parent in file.parents if [*parent.parent.glob(f"{parent.name}-*.dist-info")])
    (about,) = package.parent.glob(f"{package.name}-*.dist-info")
    lines = (about / "METADATA").read_text(errors="replace").split("\n\n")[0].splitlines()
    named = [line.partition(": ")[2] for line in lines if line.startswith(("License: ", "License-Expression: "))]
    known = [licence for licence in named if licence != "UNKNOWN"]
    return known[0] if known else f"not named by {about.stem}"


if __name__ == "__main__":
    sys.exit(main())
