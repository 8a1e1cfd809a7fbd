"""Outputs after kill -9 at random moments: ``python -m benchmarks.kills``, a quarter of an hour on two cores.

A command runs once without a kill, as the reference. Then it is started and killed repeatedly, with all its processes.
A start that finishes before its kill is compared with the reference, and the next start begins from an empty folder.
After every kill an output file is either missing or complete. At the end of each round the checkpoints, ONNX files and
tables equal those of the reference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from sparsegpt_cli.sweep.tables import read_results
from sparsegpt_core.checkpoints import save_checkpoint
from sparsegpt_core.files import read_json, sha256, write_json
from sparsegpt_core.zoo import ModelShape, build_model

__all__ = ["Count", "hashes", "kill", "whole_run"]

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Count:
    """The kills of a command, how often it finished, and its duration without kills in seconds."""

    kills: int
    ends: int
    seconds: float


class Lost(AssertionError):
    """Something was lost, half-written or different."""


def main() -> None:
    """Kill each command the requested number of times, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*", default=["prune-export", "prune-export of a file", "train", "sweep"])
    parser.add_argument("--kills", type=int, default=50, help="kills of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", type=Path, help="an ONNX file to prune instead of the small one")
    parser.add_argument("--data", default="digits", help="images for that file; 8 calibrate")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds before a kill at most")
    parser.add_argument("--json", type=Path, help="where to write the counts")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="kills.") as name:
        folder = Path(name)
        checkpoint = folder / "simple_cnn.safetensors"
        make_checkpoint(checkpoint)
        network = folder / "simple_cnn.onnx"
        export = [sys.executable, "-m", "sparsegpt_cli", "export", "--weights", str(checkpoint), "--out", str(network)]
        subprocess.run([*export, "--quiet"], cwd=ROOT, check=True)
        weights = ["--weights", str(checkpoint)]
        of_file = ["--data", options.data, "--samples", "8"] if options.file else ["--eval-samples", "200"]
        grid = [f"--seeds={seed}" for seed in range(20)] + [f"--pattern={pattern}" for pattern in ("2:4", "1:4")]
        grid += [f"--samples={size}" for size in (16, 32, 64, 128, 256)]  # 200 cells
        jobs: dict[str, tuple[list[str], Callable[[Path], dict[str, str]]]] = {
            "prune-export": (["prune-export", *weights, "--layers=all", "--int8", "--eval-samples", "200"], whole_run),
            "prune-export of a file": (
                ["prune-export", "--model", str(options.file or network), "--layers=all", *of_file],
                whole_run,
            ),
            "train": (["train", "--model", "simple_cnn", "--epochs", "20"], hashes),
            "sweep": (["sweep", *weights, "--method=sparsegpt", *grid, "--eval-samples", "200"], _tables),
        }
        for command in options.commands:
            arguments, read = jobs[command]
            chance = random.Random(options.seed)
            count = kill(arguments, folder / command, read, options.kills, chance, options.longest)
            found[command] = asdict(count)
            print(command, json.dumps(found[command]), flush=True)
    if options.json:
        write_json(options.json, found)


def kill(
    arguments: list[str],
    folder: Path,
    read: Callable[[Path], dict[str, str]],
    kills: int,
    chance: random.Random,
    longest: float = 20.0,
) -> Count:
    """Start a command, kill it at random moments, and let it finish; see the module.

    Args:
        arguments: The command without its name and without ``--out``.
        folder: Where the command may write.
        read: Returns the part of the output that must equal the reference, from the path of the output.
        kills: Number of kills.
        chance: Random numbers for the moments.
        longest: Seconds before a kill at most.

    Raises:
        Lost: The output differs from the reference.
    """
    suffix = ".safetensors" if arguments[0] == "train" else ""
    whole, out = folder / f"whole{suffix}", folder / f"out{suffix}"
    start = time.monotonic()
    _start(arguments, whole).wait()
    seconds = time.monotonic() - start
    expected = read(whole)
    killed = ends = 0
    while killed < kills or ends == 0:
        process = _start(arguments, out)
        try:
            process.wait(chance.uniform(0, min(seconds, longest)) if killed < kills else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            if arguments[0] == "sweep" or not out.exists():
                continue
            if read(out) != expected:
                raise Lost(f"{out} after {killed} kills is neither missing nor whole") from None
            _remove(out)  # the kill came after the last file
            continue
        if process.returncode or read(out) != expected:
            raise Lost(f"{arguments[0]} exited with {process.returncode} after {killed} kills, or its output differs")
        ends += 1
        curves = {f"{place.stem}.curve.svg" for place in (out, whole)}
        left = {path.name for path in folder.iterdir()} - {out.name, whole.name} - curves
        if left:
            raise Lost(f"left behind: {', '.join(sorted(left))}")
        _remove(out)
    return Count(killed, ends, round(seconds, 1))


def _remove(out: Path) -> None:
    shutil.rmtree(out) if out.is_dir() else out.unlink()


def hashes(out: Path) -> dict[str, str]:
    """Return the digests of the checkpoints and ONNX files in a folder, or of a checkpoint."""
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    return {
        path.name.replace("whole", "out"): sha256(path) for path in files if path.suffix in (".onnx", ".safetensors")
    }


def whole_run(out: Path) -> dict[str, str]:
    """Return these digests for the folder of ``run``, after comparing every file with the manifest."""
    manifest = read_json(out / "manifest.json")["files"]
    if any(sha256(out / name) != record["sha256"] for name, record in manifest.items()):
        raise Lost(f"{out}: a file is not the manifest's")
    return hashes(out)


def make_checkpoint(path: Path) -> None:
    """Write an untrained network for the digits."""
    torch.manual_seed(0)
    shape = ModelShape((1, 8, 8), 10)
    metadata = {"model": "simple_cnn", "image": [1, 8, 8], "num_classes": 10, "mean": [0.0], "std": [1.0]}
    save_checkpoint(path, build_model("simple_cnn", shape).state_dict(), metadata)


def _tables(out: Path) -> dict[str, str]:
    """The rows of a sweep without their times."""
    rows = read_results(out / "results.csv")
    keys = ("checkpoint", "method", "pattern", "samples", "seed")
    return {" ".join(str(row[key]) for key in keys): str({**row, "seconds": 0}) for row in rows}


def _start(arguments: list[str], out: Path) -> subprocess.Popen[bytes]:
    out.parent.mkdir(parents=True, exist_ok=True)
    data = [] if "--data" in arguments else ["--data", "digits"]
    command = [sys.executable, "-m", "sparsegpt_cli", *arguments, *data, "--quiet", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


if __name__ == "__main__":
    main()
