"""Archives and shards made to hurt: endless lists, sizes that lie, cells that are too much.

What leaves the folder, links, devices, bombs, cut and damaged archives are in
tests/data/sources/test_archives.py, pickles in test_cifar.py and test_pickles.py.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from support.fuzz.data import with_checksums
from support.shards import shard
from thawnet.core.errors import DataError, ImageError
from thawnet.core.files import cache_entries
from thawnet.data.sources import entries
from thawnet.data.sources.open import open_source


def refused(path: Path, message: str, seconds: float = 1.0) -> int:
    """Check that an archive is refused in a sentence, soon, and nothing of it is left.

    Return the most bytes that Python took for it.
    """
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(DataError, match=message) as caught:
            open_source(str(path))
        assert time.process_time() - started < seconds
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert cache_entries() == []
    return peak


def zip_listing(count: int, declared: int) -> bytes:
    """Return a zip with this many entries in its directory, which says there are `declared`."""
    entries = b"".join(
        b"PK\x01\x02"
        + struct.pack("<4B4H3L5H2L", 20, 3, 20, *[0] * 8, 7, *[0] * 6)
        + b"%07d" % each
        for each in range(count)
    )
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, declared, declared, len(entries), 0, 0)
    return entries + end


def test_entries_are_counted_before_they_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "MAX_FILES", 1000)
    path = tmp_path / "x.zip"
    path.write_bytes(zip_listing(60_000, declared=3))
    peak = refused(path, r"x.zip' is not unpacked: it holds more than 1,000 files$")
    assert peak < 2 * path.stat().st_size


@pytest.mark.slow
def test_a_million_members_are_too_much_in_bounded_time_and_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zip_listing(entries.MAX_FILES + 1, declared=1))
    assert refused(path, "holds more than 2,000,000 files", seconds=10) < 300e6


def test_members_of_a_tar_are_counted_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "MAX_FILES", 10_000)
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(tarfile.TarInfo("a/1.png").tobuf() * 20_000)
    assert refused(path, "holds more than 10,000 files", seconds=10) < 3e6


def test_map_of_a_sparse_file_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "MAX_HEADER", 2**18)
    header = bytearray(tarfile.TarInfo("a/1.png").tobuf(tarfile.USTAR_FORMAT))
    header[156:157], header[482] = tarfile.GNUTYPE_SPARSE, 1
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(with_checksums(bytes(header)) + (b"0000000001\0\0" * 42 + b"\1" * 8) * 100_000)
    assert refused(path, "has a header of over 262,144 bytes", seconds=10) < 10e6


@pytest.mark.parametrize("size", [b"\xff" * 12, b"-0000001000\0", b"\xff" * 11 + b"\0"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE])
def test_negative_size_does_not_go_round_for_ever(tmp_path: Path, size: bytes, kind: bytes) -> None:
    info = tarfile.TarInfo("a/1.png")
    info.type = kind
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = size
    path = tmp_path / "x.tar"
    path.write_bytes(with_checksums(bytes(header)) + bytes(10_240))
    refused(path, r"of -[\d,]+ bytes|has a header|holds no files|is not a whole zip or tar archive")


def test_zip_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a/1.png", b"content")
    refused(
        path,
        r"x.zip' is not unpacked: it is compressed with LZMA; compress it with Deflate",
    )


def test_file_without_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", b"content")
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 28], content[entry + 30] = 0, 1  # the letter is not the name's but an extra
    path.write_bytes(content)
    refused(path, r"x.zip' is not unpacked: it holds a file whose name is ''$")


def test_xz_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**30}]
    with lzma.open(path, "wb", filters=filters) as file:
        file.write(bytes(10_240))
    refused(path, r"is not a whole zip or tar archive .*[Mm]emory usage limit")


# --- shards ---------------------------------------------------------------------------------------


def write_shard(
    folder: Path, names: object = ("a", "b"), cell: bytes = b"image", rows: int = 50, **how: Any
) -> Path:
    """Write a train shard of so many equal images."""
    folder.mkdir(exist_ok=True)
    path = folder / "train-00000-of-00001.parquet"
    cells = [{"bytes": cell, "path": None}] * rows
    path.write_bytes(shard(cells, [0, 1] * (rows // 2), names, **how))
    return path


@pytest.mark.parametrize("count", [0, 1, 49, 51, 63])
def test_count_of_rows_that_lies_is_told_or_does_not_matter(tmp_path: Path, count: int) -> None:
    path = write_shard(tmp_path / "shards")
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - length : -8]
    # Thrift writes a small number of 64 bits as twice itself: of rows, and of a column's values.
    lying = footer.replace(b"\x16\x64", bytes([0x16, 2 * count]))
    assert lying != footer
    path.write_bytes(content[: -8 - length] + lying + content[-8:])
    with contextlib.suppress(DataError):
        items = open_source(str(path.parent)).open_part("train")
        assert len(items) <= 50
        assert {items.read(row) for row in range(len(items))} == {b"image"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a", "x" * 10_000],
            r"class 'x{40}...' has 10,000 characters, over 1,000; give it another",
        ),
        (["a", "b\x1b[2J"], r"class 'b\?\[2J' has control or broken characters"),
        (["a", "\ud800"], r"class '\?' has control or broken characters"),
        (["a"], r"the label 1, and its schema names no class but 0 to 0;"),
    ],
)
def test_names_of_classes_that_are_none_are_told(
    tmp_path: Path, names: object, message: str
) -> None:
    path = write_shard(tmp_path / "shards", names)
    with pytest.raises(DataError, match=message):
        open_source(str(path.parent)).open_part("train")


@pytest.mark.parametrize("names", [7, {"a": 1}, [["a"] * 9] * 9, ["a", None], []])
def test_metadata_that_does_not_name_classes_counts_as_missing(
    tmp_path: Path, names: object
) -> None:
    path = write_shard(tmp_path / "shards", names)
    assert open_source(str(path.parent)).classes == ("0", "1")


@pytest.mark.parametrize(
    "text", [b"[" * 10_000_000, b'{"info":' * 100_000, b"\xff", b'{"info": 3}']
)
def test_metadata_that_is_deep_huge_or_no_json_counts_as_missing(
    tmp_path: Path, text: bytes
) -> None:
    table = pyarrow.table({"image": [b"a", b"b", b"c"], "label": ["x", "y", "x"]})
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": text}), path)
    assert open_source(str(path)).classes == ("x", "y")


def test_schema_as_deep_as_a_file_is_long_is_told(tmp_path: Path) -> None:
    """Thrift's compact form of 100,000 groups, each in the one before, and no rows."""
    groups = b"\x35\x02\x18\x01a\x15\x02\x00" * 100_000
    length = 100_002
    footer = (
        b"\x15\x02\x19\xfc"
        + bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14])
        + b"\x48\x01s\x15\x02\x00"
        + groups
        + b"\x15\x0c\x25\x02\x18\x01x\x00"
        + b"\x16\x00\x19\x0c\x00"
    )
    path = tmp_path / "deep.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(DataError, match=r"deep.parquet' is not a whole parquet .* too deeply"):
        open_source(str(path))


def test_page_that_claims_gigabytes_gets_none(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"image": [b"x" * 20] * 6, "label": ["a", "b"] * 3})
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    column = pyarrow.parquet.read_metadata(path).row_group(0).column(1)
    sizes = column.data_page_offset + 2  # Thrift: two numbers, each behind its type
    assert content[sizes : sizes + 4 : 2] == b"\x15\x15"
    content[sizes + 3 : sizes + 8] = b"\xfe\xff\xff\xff\x0f"  # 2**31 - 1 bytes
    path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(DataError, match=r"a.parquet' cannot be read \(.*download it again"):
        open_source(str(path))
    assert time.process_time() - started < 0.3


def test_label_that_unpacks_a_thousandfold_is_held_once(tmp_path: Path) -> None:
    long = "x" * 2**20
    table = pyarrow.table({"image": [b"a"] * 3000, "label": [long, "y", "y"] * 1000})
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, path, dictionary_pagesize_limit=2**22)  # 1 GB of text
    assert path.stat().st_size < 2**20
    before = pyarrow.total_allocated_bytes()
    del table
    pool = pyarrow.default_memory_pool()
    with pytest.raises(DataError, match="has 1,048,576 characters, over 1,000"):
        open_source(str(path))
    assert pyarrow.total_allocated_bytes() <= before
    assert pool.max_memory() < before + 2**26


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret.png", "a/../../secret.png", "a\0b"])
def test_path_in_a_cell_that_leads_out_of_the_folder_is_not_read(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "in.png").write_bytes(b"in")
    cells = [{"bytes": None, "path": name} for name in ("in.png", "a/../in.png", path)]
    table = pyarrow.table({"image": cells, "label": ["x", "y", "x"]})
    pyarrow.parquet.write_table(table, tmp_path / "d" / "photos.parquet")
    items = open_source(str(tmp_path / "d")).open_part("train")
    assert [items.read(0), items.read(1)] == [b"in", b"in"]
    with pytest.raises(ImageError, match="is not in the folder of its shard"):
        items.read(2)


def test_path_in_a_cell_that_is_no_text_names_the_file_of_those_bytes(tmp_path: Path) -> None:
    names = [b"a\xff.png", b"b.png", b"c\xff.png"]
    for name in names[:2]:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    paths = pyarrow.array(names).view(pyarrow.string())
    cells = pyarrow.StructArray.from_arrays([pyarrow.nulls(3), paths], ["bytes", "path"])
    table = pyarrow.table({"image": cells, "label": ["x", "y", "x"]})
    pyarrow.parquet.write_table(table, tmp_path / "photos.parquet")
    items = open_source(str(tmp_path)).open_part("train")
    assert [items.read(row) for row in range(2)] == names[:2]
    with pytest.raises(FileNotFoundError):
        items.read(2)


def test_cells_that_unpack_a_thousandfold_are_read_one_at_a_time(tmp_path: Path) -> None:
    how = {"compression": "zstd", "use_dictionary": False, "write_batch_size": 1}
    path = write_shard(tmp_path / "shards", cell=bytes(2**21), rows=40, **how)  # 84 MB
    assert path.stat().st_size < 2**16
    items = open_source(str(path.parent)).open_part("train")
    most = 0
    for row in range(len(items)):
        assert len(items.read(row)) == 2**21
        most = max(most, pyarrow.total_allocated_bytes())
    assert most < 2**25


# --- names ----------------------------------------------------------------------------------------


def test_label_in_a_table_that_is_no_name_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    for label, message in (("x" * 2000, "has 2,000 characters"), ("a\x1b]0;x\x07", "control")):
        path.write_text(f"path,label\na.png,{label}\nb.png,b\n")
        with pytest.raises(DataError, match=message):
            open_source(str(path))


def test_folder_in_an_archive_that_is_no_name_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:
        for name in ("a\x1b[31m/1.png", "b/1.png"):
            file.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DataError, match=r"class 'a\?\[31m' has control or broken characters"):
        open_source(str(path))
