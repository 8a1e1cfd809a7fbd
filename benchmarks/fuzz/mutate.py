"""Changes bytes, JSON documents and lines of text."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

__all__ = ["HOSTILE_TEXT", "LARGEST", "mutate_bytes", "mutate_json", "mutate_lines"]

LARGEST = 1 << 20  # bytes of an input

HOSTILE_TEXT = (
    "",
    " ",
    "..",
    "../../../../tmp/out",
    "/etc/passwd",
    "/dev/zero",
    "a" * 300,
    "x" * 20_000,
    "\0",
    "\ud800",
    "\u202e",
    "1" * 5_000,
    "9" * 5_000 + ":4",
    "1:999999999",
    "-1:4",
    "nan",
    "1e999",
    "os:system",
    "torchvision:resnet18",
    "simple_cnn",
    "%s%n{0}{{x}}$OUT",
    "<script>document.title='run'</script>",
    "[" * 30_000,
)
_HOSTILE_JSON: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.5, -0.0, 2**31, 2**63, -(2**64), 10**30, 1e308, float("nan"), float("inf"), [], {},
    [[]], {"": {}}, [None] * 50, *HOSTILE_TEXT,
)  # fmt: skip
_NUMBERS = (b"\0", b"\x7f", b"\x80", b"\xff", b"\xff" * 4, b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0" * 8, b"\x0a", b'"')


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Overwrite, remove, repeat or swap some bytes."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 1, 2, 4, 8, 64, 1024))
        piece = changed[place : place + length]
        match rng.randrange(6):
            case 0:
                changed[place : place + length] = rng.randbytes(len(piece))
            case 1:
                del changed[place : place + length]
            case 2:
                changed[place:place] = piece * rng.choice((1, 1, 2, 50))
            case 3:
                number = rng.choice(_NUMBERS)
                changed[place : place + len(number)] = number
            case 4:
                other = rng.randrange(len(changed) + 1)
                changed[place : place + length] = changed[other : other + length]
            case 5:
                del changed[place:]
    return bytes(changed[:LARGEST])


def mutate_json(rng: random.Random, content: bytes) -> bytes:
    """Change values and keys of a JSON document, and sometimes its bytes."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):  # an earlier change broke the document
        return mutate_bytes(rng, content)
    plain = rng.random() < 0.8
    text = content
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        tree = _mutate_tree(rng, tree)
        text = json.dumps(tree, ensure_ascii=plain).encode(errors="surrogatepass")
        if len(text) > LARGEST:  # a few more changes would make gigabytes
            break
    if rng.random() < 0.05:
        text = text.replace(b"null", rng.choice((b"[", b'{"a":')) * rng.choice((900, 100_000)), 1)
    if rng.random() < 0.05:
        text = text.replace(b"1", b"1" * rng.choice((400, 5_000)), 1)
    return (mutate_bytes(rng, text) if rng.random() < 0.15 else text)[:LARGEST]


def mutate_lines(tokens: tuple[str, ...]) -> Callable[[random.Random, bytes], bytes]:
    """Make a mutator that changes, repeats, removes and indents lines, and inserts tokens of the format."""

    def mutate(rng: random.Random, content: bytes) -> bytes:
        lines = content.decode(errors="replace").split("\n")
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.randrange(len(lines))
            line, token = lines[place], rng.choice((*tokens, *HOSTILE_TEXT))
            cut = rng.randrange(len(line) + 1)
            match rng.randrange(6):
                case 0:
                    lines[place] = line[:cut] + token + line[cut:]
                case 1:
                    lines[place] = line[:cut] + token
                case 2:
                    lines.insert(place, rng.choice(lines))
                case 3:
                    lines[place] = " " * rng.choice((1, 2, 5)) + line
                case 4:
                    del lines[place]
                    lines = lines or [""]
                case 5:
                    piece = line or token or " "
                    lines[place] = piece * min(rng.choice((2, 20, 2_000)), 1 + LARGEST // len(piece))
        changed = "\n".join(lines).encode(errors="surrogatepass")
        return (mutate_bytes(rng, changed) if rng.random() < 0.2 else changed)[:LARGEST]

    return mutate


def _mutate_tree(rng: random.Random, tree: Any) -> Any:
    """Change one node of a document."""
    places = _places(tree)
    if not places:
        return copy.deepcopy(rng.choice(_HOSTILE_JSON))
    holder, key = rng.choice(places)
    match rng.randrange(6):
        case 0 | 1:
            holder[key] = copy.deepcopy(rng.choice(_HOSTILE_JSON))
        case 2:
            del holder[key]
        case 3:
            holder[key] = rng.choice(([holder[key]], {"a": holder[key]}, [holder[key]] * 30))
        case 4:
            other, place = rng.choice(places)
            holder[key] = json.loads(json.dumps(other.get(place) if isinstance(other, dict) else None))
        case 5 if isinstance(holder, dict):
            holder[rng.choice(HOSTILE_TEXT)] = holder.pop(key)
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) in a document."""
    found: list[tuple[Any, Any]] = []
    left = [tree]
    while left:
        node = left.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            found.append((node, key))
            left.append(value)
    return found
