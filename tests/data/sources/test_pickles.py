"""Pickles that ask for more than their bytes can need. What they may name: test_cifar.py."""

from __future__ import annotations

import pickle
import pickletools
import tracemalloc

import pytest

from thawnet.data.sources.pickles import PickleRefusedError, read_pickle


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a list, kept as number 2^31 - 1
        b"]p2000000000\n.",
        b"\x80\x05\x96\xff\xff\xff\xff\x00\x00\x00\x00abc.",  # a bytearray of 4 GB
        b"\x80\x04\x8d\xff\xff\xff\xff\x00\x00\x00\x00abc.",  # text
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",  # bytes
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f].",  # a frame
        b"\x8b\xff\xff\xff\x7f1.",  # a number of 2 GB
    ],
)
def test_lengths_that_lie_take_no_memory(hostile: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(PickleRefusedError):
            read_pickle(hostile)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1e6


@pytest.mark.parametrize("protocol", range(6))
def test_numbering_that_pickle_itself_does_is_read(protocol: int) -> None:
    labels = {"labels": list(range(2000)), "names": [f"image {row}" for row in range(2000)]}
    content = pickle.dumps(labels, protocol)
    assert any("PUT" in op.name or op.name == "MEMOIZE" for op, _, _ in pickletools.genops(content))
    assert read_pickle(content) == labels
