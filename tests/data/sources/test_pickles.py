"""Pickles read as data: what comes out, what they may not name, and what they may not cost."""

from __future__ import annotations

import pickle
import pickletools
import tracemalloc

import numpy as np
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
        b"\x80\x02(" + b"]" * 3_000_000 + b"l.",  # as many lists
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


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\n"


@pytest.mark.parametrize(
    "hostile",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"\x80\x02" + DTYPE + b"U\x01O\x85R.",  # objects in an array
        b"\x80\x02" + DTYPE + b"U\x02u1\x85R.",  # a dtype by itself
        b"\x80\x02" + DTYPE + b"}(U\x01aK\x01ub.",  # BUILD on a stand-in
        b"\x80\x02" + ARRAY + b")\x81.",  # NEWOBJ on one
        b"\x80\x02" + ARRAY + b")R.",  # an array without content
        b"\x80\x02" + ARRAY + b")R(K\x01K\x05\x85" + DTYPE + b"U\x02u1\x85R\x89U\x01xtb.",
        b"\x80\x02](](K\x01ee.",  # a list in a list
        b"\x80\x02U\x05ab.",
        b"P1\n.",
        b"\x82\x01.",
        b".",
        b"",
    ],
)
def test_only_numbers_strings_lists_and_byte_arrays_come_out_of_a_pickle(hostile: bytes) -> None:
    with pytest.raises(PickleRefusedError):
        read_pickle(hostile)


def test_arrays_that_python_3_writes_are_read() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for value in (array, np.asfortranarray(array)):
        read = read_pickle(pickle.dumps({"data": value}, protocol=2))["data"]
        assert np.array_equal(read, array)
