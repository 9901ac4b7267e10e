"""Files as streams: xz as the library reads it, and no more memory than is stated."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from thawnet.data.sources.streams import BLOCK, decompressed

CONTENT = np.random.default_rng(0).integers(0, 4, 3 * BLOCK, dtype=np.uint8).tobytes()


def test_xz_is_read_from_any_byte_on(tmp_path: Path) -> None:
    path = tmp_path / "x.xz"
    path.write_bytes(lzma.compress(CONTENT))
    with decompressed(path) as stream:
        for start in (0, 7, BLOCK, 5, 2 * BLOCK + 1, len(CONTENT) - 3, 0, len(CONTENT) + 9):
            stream.seek(start)
            assert stream.read(100) == CONTENT[start : start + 100]
        stream.seek(0)
        assert stream.read() == CONTENT


def test_xz_of_several_streams_with_padding_is_one(tmp_path: Path) -> None:
    path = tmp_path / "x.xz"
    path.write_bytes(lzma.compress(b"one") + bytes(8) + lzma.compress(b"two") + bytes(4))
    with decompressed(path) as stream:
        assert stream.read() == b"onetwo"


@pytest.mark.parametrize("cut", [-1, -20, 40])
def test_xz_that_is_cut_is_an_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.xz"
    path.write_bytes(lzma.compress(CONTENT)[:cut])
    with decompressed(path) as stream, pytest.raises((EOFError, lzma.LZMAError)):
        stream.read()


def test_xz_may_not_ask_for_more_memory_than_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "x.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**29}]
    path.write_bytes(lzma.compress(b"x", filters=filters))
    with decompressed(path) as stream, pytest.raises(lzma.LZMAError, match=r"[Mm]emory usage"):
        stream.read()
    path.write_bytes(lzma.compress(CONTENT, preset=9))  # the strongest
    with decompressed(path) as stream:
        assert stream.read() == CONTENT
