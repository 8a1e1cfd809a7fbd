"""Train, prune and export by the command line, and let limits decide: a script for a CI job, with the report to keep.

python gate_in_ci.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command; return its exit status and what it prints as JSON."""
    command = [sys.executable, "-m", "sparsegpt_trt", *arguments, "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def main() -> int:
    """Return the exit status: 0 if the pruned network is good enough."""
    trained, network = run(
        *("train", "--model", "simple_cnn", "--data", "digits", "--epochs", "6", "--out", "net.safetensors")
    )
    if trained:
        return trained
    print(f"trained to {network['validation_top1']:.2f} % of the validation images")
    status, result = run(
        *("prune-export", "--weights", "net.safetensors", "--layers", "all", "--samples", "256"),
        *("--max-drop", "1", "--gate-disagreement", "3", "--out", "out"),
    )
    for failure in result.get("failures", []):
        print(failure)
    print(f"exit status {status}; out/report.html says more")
    return status


if __name__ == "__main__":
    sys.exit(main())
