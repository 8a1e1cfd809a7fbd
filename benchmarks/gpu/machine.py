"""What every part shares: the machine's description, and one line where a part cannot run.

``python -m benchmarks.gpu.machine FILE`` writes the description. Needs no torch.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Optional

from deploy.machine import connect, describe_environment, find_backend
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.files import read_json, write_json

ROOT = Path(__file__).parent.parent.parent


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the process with one line where this project raises an error on purpose."""
    try:
        yield
    except SparseGPTError as error:
        sys.exit(one_line(error))


def one_line(error: SparseGPTError) -> str:
    """Return the message and the hint."""
    return f"error: {error}. {error.hint}".rstrip()


def require_engines() -> None:
    """Raise an error where no engine of TensorRT can run here, before any is built."""
    find_backend("tensorrt")
    connect()


def is_measured(path: Path) -> bool:
    """Tell whether the file has a result. One with an error is measured again."""
    return path.exists() and "error" not in read_json(path)


def end_with_errors(out: Path, part: str) -> None:
    """End the process with one line where results of a part are errors."""
    failed = [path.name for path in sorted(out.glob(f"{part}-*.json")) if not is_measured(path)]
    if failed:
        sys.exit(f"error: these results are errors: {', '.join(failed)}. Another run measures them again.")


def _output(command: List[str]) -> Optional[str]:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def main() -> None:
    """Write the description."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.machine", description=__doc__)
    parser.add_argument("file", type=Path)
    found = {
        "environment": describe_environment(),
        "commit": _output(["git", "rev-parse", "HEAD"]),
        "nvidia_smi": _output(["nvidia-smi", "-q"]),
    }
    write_json(parser.parse_args().file, found)


if __name__ == "__main__":
    main()
