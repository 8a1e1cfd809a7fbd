"""Changes to safetensors files: to the JSON at their beginning, to the JSON inside that, and to bytes."""

from __future__ import annotations

import json
import random
import struct

from benchmarks.fuzz.mutate import mutate_bytes, mutate_json

__all__ = ["mutate_safetensors"]


def mutate_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Change a file; mostly its header's length stays right, so that more than the first check is met."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, content)
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    header = _mutate_noted(rng, header) if rng.random() < 0.6 else mutate_json(rng, header)
    stated = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 2**40, 2**63, 2**64 - 1))
    return struct.pack("<Q", stated) + header + data


def _mutate_noted(rng: random.Random, header: bytes) -> bytes:
    """Change what this program notes, which is JSON in a string."""
    tree = json.loads(header)
    noted = tree["__metadata__"]
    for key, text in noted.items():
        noted[key] = mutate_json(rng, text.encode()).decode(errors="replace")
    return json.dumps(tree).encode()
