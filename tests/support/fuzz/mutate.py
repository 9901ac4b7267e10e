"""Hostile input made from what is valid: bytes that are mutated, and trees of values.

Everything is a function of a random.Random, so that an input can be made again from its number.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

MOST_BYTES = 200_000  # of an input; splices would grow it without end

# What readers trip over: ends of the number ranges, escapes, and names that leave a folder.
TOKENS = (
    *(b"\x00", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff" * 8, b"\x00" * 8),
    *(b"../", b"/etc/passwd", b"..\\", b"C:\\", b"\x1b[31m", b"-1", b"NaN", b"1e999", b"9" * 40),
)

Tree = Any  # dicts, lists and scalars, as JSON and TOML hold them


def mutated(rng: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """Return one of the seeds, spoilt in one to eight places."""
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 3, 5, 8))):
        if not content:
            break
        at = rng.randrange(len(content))
        manner = rng.randrange(9)
        if manner == 0:
            content[at] ^= 1 << rng.randrange(8)
        elif manner == 1:
            content[at] = rng.randrange(256)
        elif manner == 2:
            del content[at:]  # cut
        elif manner == 3:
            del content[at : at + rng.randrange(1, 64)]
        elif manner == 4:
            content[at:at] = content[at : at + rng.randrange(1, 256)]  # doubled
        elif manner == 5:
            token = rng.choice((*TOKENS, *tokens))
            content[at : at + len(token)] = token
        elif manner == 6:
            content[at:at] = rng.choice((*TOKENS, *tokens))
        elif manner == 7:
            other = rng.choice(seeds)  # spliced: the beginning of one, the end of another
            content[at:] = other[rng.randrange(len(other)) :] if other else b""
        else:
            content[at:at] = rng.randbytes(rng.randrange(1, 64))
        del content[MOST_BYTES:]
    return bytes(content)


def spoilt(rng: random.Random, tree: Tree) -> Tree:
    """Return a copy of a tree in which one to four of its parts are of another kind."""
    copy = json.loads(json.dumps(tree))
    for _ in range(rng.choice((1, 1, 2, 4))):
        holder = copy
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.7:
                holder = holder[key]
                continue
            if rng.random() < 0.15:
                del holder[key]
            elif isinstance(holder, dict) and rng.random() < 0.15:
                holder[text(rng)] = holder.pop(key)
            else:
                holder[key] = value(rng)
            break
    return copy


def value(rng: random.Random, depth: int = 0) -> Tree:
    """Return any value: a number at the end of a range, odd text, or a tree of these."""
    manner = rng.randrange(9 if depth < 4 else 6)
    if manner == 0:
        return rng.choice((0, -1, 1, 2, 31, 1025, 2**31, 2**63, -(2**63), 10**30, 10**400))
    if manner == 1:
        return rng.choice((0.0, -0.5, 0.5, 1.0, 1e300, 1e-300, float("inf"), float("nan")))
    if manner == 2:
        return rng.choice((True, False))
    if manner < 6:
        return text(rng)
    if manner == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if manner == 7:
        return {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    deep: Tree = rng.choice((1, "x"))
    for _ in range(rng.choice((10, 50, 200))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    return deep


def text(rng: random.Random) -> str:
    """Return text that a terminal, a page, a path or a table could take for something else."""
    return rng.choice(
        (
            *("", "a", "head", "same", "../../x", "/etc/passwd", "a\x00b", "a\nb", "\x1b]0;x\x07"),
            *("<script>alert(1)</script>", "[red]", "\ud800", "\u202eabc", "=1+1", "x" * 10_000),
            *("hf-hub:a/b", "9" * 5000, "nan", "NaN", "南" * 300, "".join(map(chr, range(256)))),
        )
    )


def toml(tree: Tree) -> str:
    """Write a tree as TOML, tables inline below the second level; what TOML lacks is no TOML."""
    lines = []
    tables = []
    for key, inner in tree.items():
        if isinstance(inner, dict):
            tables.append((key, inner))
        else:
            lines.append(f"{_key(key)} = {_inline(inner)}")
    for key, inner in tables:
        lines.append(f"[{_key(key)}]")
        lines += [f"{_key(name)} = {_inline(each)}" for name, each in inner.items()]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key.isascii() else _quoted(key)


def _quoted(word: str) -> str:
    return json.dumps(word)  # TOML's escapes are those of JSON, but for surrogates


def _inline(inner: Tree) -> str:
    if isinstance(inner, dict):
        return (
            "{" + ", ".join(f"{_key(key)} = {_inline(each)}" for key, each in inner.items()) + "}"
        )
    if isinstance(inner, list):
        return "[" + ", ".join(map(_inline, inner)) + "]"
    if isinstance(inner, bool):
        return str(inner).lower()
    return _quoted(inner) if isinstance(inner, str) else repr(inner)
