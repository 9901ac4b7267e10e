"""Targets that read data: archives, pickles, shards and tables."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import pickle
import random
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from functools import cached_property, partial
from typing import ClassVar

import numpy as np

from support.fuzz.mutate import mutated
from support.fuzz.target import Target, encoded, picture
from thawnet.core.errors import DataError
from thawnet.data.items import unwatched
from thawnet.data.sources import archives
from thawnet.data.sources.open import open_source
from thawnet.data.sources.pickles import PickleRefusedError, read_pickle
from thawnet.data.sources.table import from_table


class Archive(Target):
    """An archive of a folder, unpacked into the cache."""

    megabytes = 300
    suffix: ClassVar[str]

    def run(self, content: bytes) -> None:
        """Unpack it, and remove what came of it."""
        path = self.folder / f"hostile{self.suffix}"
        path.write_bytes(content)
        cache = self.folder / "cache"  # as THAWNET_CACHE says
        try:
            unpacked = archives.unpack(path, unwatched, lambda text: None)
            for found in unpacked.rglob("*"):
                assert not found.is_symlink(), f"{found} is a link"
                assert found.is_dir() or found.is_file(), f"{found} is no file"
        finally:
            shutil.rmtree(cache, ignore_errors=True)


FILES = {"a/1.png": b"one", "a/2.png": b"two" * 300, "b/c/3.png": b"", "labels.csv": b"path,label"}


class Zip(Archive):
    """Zip files, stored and packed, of other systems too."""

    name = "zip"
    suffix = ".zip"
    tokens = (
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"PK\x06\x06",
        b"PK\x06\x07",
        b"\x0e\x00",
    )

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """One for each way of packing."""
        found = []
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", method) as packed:
                for name, content in FILES.items():
                    packed.writestr(zipfile.ZipInfo(name), content, method)
                packed.comment = b"comment"
            found.append(file.getvalue())
        return found


class Tar(Archive):
    """Tar files, plain and packed; checksums of headers are put right again, mostly."""

    name = "tar"
    suffix = ".tar"
    tokens = (b"ustar\x0000", b"ustar  \0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"00000000000\0",
              b"-0000001000\0", b"30 mtime=1.5\n", b"19 size=-512\n", b"22 GNU.sparse.major=1\n",
              *b"1 2 5 x g L K S V".split())  # fmt: skip

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """One for each form."""
        found = []
        for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w", format=form) as packed:
                for name, content in {**FILES, "d/" + "long " * 18 + ".png": b"x"}.items():
                    info = tarfile.TarInfo(name)
                    info.size, info.mtime = len(content), 1.5 if form == tarfile.PAX_FORMAT else 1
                    packed.addfile(info, io.BytesIO(content))
            found.append(file.getvalue())
        return found

    def make(self, rng: random.Random) -> bytes:
        """Spoil the tar inside or, now and then, what it is packed by."""
        content = super().make(rng)
        if rng.random() < 0.85:
            content = with_checksums(content)
        pack = rng.choice((None, None, partial(gzip.compress, mtime=0), lzma.compress))
        if pack is None:
            return content
        packed = pack(content)
        return packed if rng.random() < 0.7 else mutated(rng, [packed], self.tokens)


def with_checksums(content: bytes) -> bytes:
    """Return a tar whose headers have the checksum of what they hold."""
    spoilt = bytearray(content)
    for start in range(0, len(spoilt) - 511, 512):
        block = spoilt[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            spoilt[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(spoilt)


class Pickle(Target):
    """CIFAR's pickles, read as data."""

    name = "pickle"
    tokens = (
        *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"j\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f"),
        *(b"r\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 7 + b"\x7f", b"q\xff", b"h\x00"),
        *(b"R", b"b", b"\x81", b"\x93", b"o", b"i", b"\x94", b"2", b"(", b"t", b"e", b"u", b"."),
    )

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """What Python 2 and 3 write of a batch."""
        batch = {b"data": np.arange(24, dtype=np.uint8).reshape(2, 12), b"fine_labels": [1, 2]}
        names = {"fine_label_names": ["apple", b"bear"], "n": 2.5, "none": None}
        return [pickle.dumps(each, protocol) for each in (batch, names) for protocol in (0, 2, 4)]

    def run(self, content: bytes) -> None:
        """Read it as data/sources/cifar.py does."""
        try:
            read_pickle(content)
        except PickleRefusedError as error:
            raise DataError(f"it is refused: {error}") from error


class Shard(Target):
    """Parquet shards in the layout of the hub."""

    name = "shard"
    megabytes = 600

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """One for each way of packing."""
        import pyarrow
        import pyarrow.parquet

        features = {
            "img": {"_type": "Image"},
            "label": {"names": ["a", "b"], "_type": "ClassLabel"},
        }
        images = [
            {"bytes": encoded(picture(), "PNG"), "path": None},
            None,
            {"bytes": b"", "path": "x"},
        ]
        table = pyarrow.table({"img": images * 4, "label": [0, 1, 1] * 4})
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
        found = []
        for packing in ("none", "snappy", "zstd", "gzip"):
            file = io.BytesIO()
            pyarrow.parquet.write_table(table, file, compression=packing, row_group_size=6)
            found.append(file.getvalue())
        return found

    def run(self, content: bytes) -> None:
        """List it and read every image."""
        folder = self.folder / "shards"
        folder.mkdir(exist_ok=True)
        (folder / "train-00000-of-00001.parquet").write_bytes(content)
        items = open_source(str(folder)).open_part("train")
        for row in range(len(items)):
            items.read(row)


class Table(Target):
    """CSV tables that came out of an archive."""

    name = "table"
    tokens = (b'"', b"\n", b",", b"\r", b";", b"val", b"\xef\xbb\xbf", b'"\n"', b"\0")

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """With and without the optional columns."""
        return [
            b"path,label\na.png,x\nb.png,y\n",
            "path,label,split,group\na.png,x,train,1\nb.png,köttur,val,2\nc.png,x,test,\n".encode(),
            b'\xef\xbb\xbfpath,label\r\n"a.png","x, y"\r\nb.png,z\r\n',
        ]

    def run(self, content: bytes) -> None:
        """Open it; three of the images that it may name are there."""
        for name in ("a.png", "b.png", "c.png"):
            (self.folder / name).touch()
        path = self.folder / "hostile.csv"
        path.write_bytes(content)
        source = from_table(path, confined=True)
        for part in source.parts:
            source.open_part(part)
