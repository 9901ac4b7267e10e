"""A target of the fuzzer, and hostile input made from what is valid, as Hypothesis strategies."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st

from thawnet.core.errors import DataError

MOST_BYTES = 200_000  # of an input; splices would grow it without end
# What readers trip over: ends of the number ranges, escapes, and names that leave a folder.
TOKENS = (
    *(b"\x00", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff" * 8, b"\x00" * 8),
    *(b"../", b"/etc/passwd", b"..\\", b"C:\\", b"\x1b[31m", b"-1", b"NaN", b"1e999", b"9" * 40),
)


class Target:
    """A reader of something from outside, with a folder, the only one that it may write to."""

    file: ClassVar[str]
    """What an input is called in the folder."""
    refusals: ClassVar[tuple[type[Exception], ...]] = (DataError,)
    """What the reader may raise."""
    megabytes: ClassVar[int] = 300
    """The most memory that it may take beyond what it has after its first valid input."""
    tokens: ClassVar[tuple[bytes, ...]] = ()
    """Words of the format."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def seeds(self) -> list[bytes]:
        """Return valid inputs."""
        raise NotImplementedError

    def inputs(self) -> st.SearchStrategy[bytes]:
        """Return hostile inputs."""
        return spoilt(self.seeds(), self.tokens)

    def run(self, content: bytes) -> None:
        """Read an input; raises one of `refusals` where it is refused."""
        path = self.folder / self.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)  # what a crash leaves
        self.read(path)

    def read(self, path: Path) -> None:
        raise NotImplementedError


def spoilt(seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """Return one of the seeds in which up to six stretches are cut, replaced or spliced."""
    words = (*TOKENS, *tokens)

    def spoil(rng: random.Random) -> bytes:
        content = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            other = rng.choice(seeds)
            start = rng.randrange(len(other))
            piece = other[start : start + rng.choice((16, 256, len(other)))]
            patch = rng.choice((b"", rng.choice(words), rng.randbytes(rng.randint(1, 64)), piece))
            begin = rng.randint(0, len(content))
            end = begin + rng.choice((0, 1, len(patch), rng.randint(1, 64), len(content)))
            content = (content[:begin] + patch + content[end:])[:MOST_BYTES]
        return content

    # Not drawn piece by piece: that would take twice the time, and spoil first bytes mostly.
    return st.randoms(use_true_random=True).map(spoil)


# What a terminal, a page, a path or a table could take for something else.
TEXTS = st.text(max_size=20) | st.sampled_from(
    (
        *("", "a", "head", "same", "../../x", "/etc/passwd", "a\x00b", "a\nb", "\x1b]0;x\x07"),
        *("<script>alert(1)</script>", "[red]", "\ud800", "\u202eabc", "=1+1", "x" * 10_000),
        *("hf-hub:a/b", "9" * 5000, "nan", "NaN", "南" * 300, "".join(map(chr, range(256)))),
    )
)
NUMBERS = (
    st.sampled_from((31, 1025, 2**31, 2**63, -(2**63), 10**30, 10**400))
    | st.integers(-1, 2)
    | st.floats()
    | st.booleans()
)
DEEP = st.integers(10, 200).map(lambda n: functools.reduce(lambda inner, _: [inner], range(n), 1))
VALUES = DEEP | st.recursive(
    NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def spoilt_fields(draw: st.DrawFn, table: dict[str, Any]) -> dict[str, Any]:
    """Return a table in which up to three fields, at any depth, are removed, renamed or changed."""
    table = copy.deepcopy(table)
    for _ in range(draw(st.integers(1, 3))):
        holder: Any = table
        while True:
            key = draw(
                st.sampled_from([*holder] if isinstance(holder, dict) else range(len(holder)))
            )
            inner = holder[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 2)) == 0:
                break
            holder = inner
        manner = draw(st.integers(0, 6))
        if manner == 0 and len(holder) > 1:
            del holder[key]
        elif manner == 1 and isinstance(holder, dict):
            holder[draw(TEXTS)] = holder.pop(key)
        else:
            holder[key] = draw(VALUES)
    return table
