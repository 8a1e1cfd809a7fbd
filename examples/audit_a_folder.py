"""Say of each ONNX file in a folder which of its layers are 2:4. Loads no torch, so it also runs on a Jetson.

python audit_a_folder.py FOLDER
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import sparsegpt_trt as st


def main(folder: Path) -> int:
    """Print a line for each file.

    Returns:
        The exit status: 1 if no file has a 2:4 layer.
    """
    found = 0
    for path in sorted(folder.glob("*.onnx")):
        audit = st.audit_model(path)
        reasons = Counter(str(layer.reason.value) for layer in audit.layers if layer.reason)
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        print(
            f"{path.name}: {audit.sparse_layers} of {len(audit.layers)} layers are {audit.pattern}; {why or 'all fit'}"
        )
        found += audit.sparse_layers > 0
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if sys.argv[1:] else ".")))
