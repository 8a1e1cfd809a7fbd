"""Deep and large networks through the commands: ``python -m benchmarks.large``; needs 12 GiB of memory, 20 of disk.

One network has a thousand convolutions, the other more than 2 GiB of weights. Each is pruned by magnitude, exported,
pruned again from its file, and verified. Each command has its own process, whose time and peak memory are printed with
the size of the weights; ``without_files_gib`` does not count pages of mapped files.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sparsegpt_core.checkpoints import save_checkpoint
from sparsegpt_core.files import write_json

ROOT = Path(__file__).parent.parent
IMAGE = (4, 8, 8)
_METER = """
import resource, subprocess, sys, time
from pathlib import Path
command, own = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL), 0
while command.poll() is None:
    status = Path(f"/proc/{command.pid}/status").read_text().split()
    own = max(own, int(status[status.index("RssAnon:") + 1]) if "RssAnon:" in status else 0)
    time.sleep(0.1)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, own)
sys.exit(command.returncode)
"""


def deep() -> nn.Module:
    """A thousand 3×3 convolutions of 32 channels."""
    layers: list[nn.Module] = [nn.Conv2d(IMAGE[0], 32, 3, padding=1)]
    for _ in range(999):
        layers += [nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 64, 10))


def wide() -> nn.Module:
    """Nine linear layers of 8192 by 8192: 2.25 GiB in FP32."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(256, 8192)]
    for _ in range(9):
        layers += [nn.ReLU(), nn.Linear(8192, 8192)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(8192, 10))


def main() -> None:
    """Run the commands on both networks and print their time and peak memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["deep", "wide"])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    found = {}
    options = parser.parse_args()
    for name in options.networks:
        with tempfile.TemporaryDirectory(prefix="large.") as folder:
            found[name] = _measure(name, {"deep": deep, "wide": wide}[name](), Path(folder))
    if options.json:
        write_json(options.json, found)


def _measure(name: str, model: nn.Module, folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    weights, images, test = folder / "weights.safetensors", folder / "images.npz", folder / "test.npz"
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)  # activations neither vanish nor explode
    state = model.state_dict()
    size = sum(tensor.nbytes for tensor in state.values())
    save_checkpoint(weights, state, {"model": f"benchmarks.large:{name}", "image": list(IMAGE)})
    for seed, path in enumerate((images, test)):
        np.savez(path, images=np.random.default_rng(seed).standard_normal((8, *IMAGE), np.float32), labels=np.arange(8))
    data, every = ["--data", f"npz:{images}"], ["--layers=all"]
    given = ["--model", f"benchmarks.large:{name}", *data]
    pruned, exported = folder / "pruned.safetensors", folder / "sparse.onnx"
    again = ["prune-export", "--model", exported, *data, *every, "--samples", 4]
    ways = [[], ["--memory-limit", "6GiB"], ["--int8"], ["--eval-data", f"npz:{test}"]]
    commands = (
        ["prune", "--weights", weights, *given, *every, "--method", "magnitude", "--samples", 4, "--out", pruned],
        ["export", "--weights", pruned, *given, "--out", exported],
        ["export", "--weights", pruned, *given, "--precision", "fp16", "--out", folder / "sparse.fp16.onnx"],
        *([*again, *more, "--out", folder / f"again{number}"] for number, more in enumerate(ways)),
        ["verify", exported, "--json"],
        ["verify", folder / "sparse.fp16.onnx", "--json"],
    )
    rows = [{"command": _short(command), **_run([str(part) for part in command])} for command in commands]
    for row in rows:
        print(f"{name} ({size / 2**30:.2f} GiB): {row}")
    return {"weights_gib": size / 2**30, "commands": rows}


def _short(command: Sequence[object]) -> str:
    """The command with its options, without what all have."""
    return " ".join(str(part) for part in command if not str(part).startswith(("/", "npz:")))


def _run(command: list[str]) -> dict[str, float]:
    """Run a command from a small process: a child's peak memory includes that of its parent before exec."""
    start = time.monotonic()
    whole = [sys.executable, "-S", "-c", _METER, sys.executable, "-m", "sparsegpt_cli", *command]
    done = subprocess.run(whole, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}")
    peak, own = (round(int(kib) / 2**20, 2) for kib in done.stdout.split())
    return {"seconds": round(time.monotonic() - start, 1), "peak_gib": peak, "without_files_gib": own}


if __name__ == "__main__":
    main()
