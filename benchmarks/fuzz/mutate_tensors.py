"""Changes safetensors files: the JSON header, the JSON strings in it, and bytes."""

from __future__ import annotations

import json
import random
import struct

from benchmarks.fuzz.mutate import mutate_bytes, mutate_json

__all__ = ["mutate_safetensors"]


def mutate_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Change a file. Its header's length is usually right, or no check after the first one would be reached."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, content)
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    header = _mutate_metadata(rng, header) if rng.random() < 0.6 else mutate_json(rng, header)
    stated = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 2**40, 2**63, 2**64 - 1))
    return struct.pack("<Q", stated) + header + data


def _mutate_metadata(rng: random.Random, header: bytes) -> bytes:
    """Change the metadata that this program writes, which is JSON in a string."""
    tree = json.loads(header)
    metadata = tree["__metadata__"]
    for key, text in metadata.items():
        metadata[key] = mutate_json(rng, text.encode()).decode(errors="replace")
    return json.dumps(tree).encode()
