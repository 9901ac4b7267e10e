"""Targets that read data: archives, pickles, shards and tables."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import pickle
import shutil
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from support.fuzz.target import Target, spoilt
from support.photos import draw, encoded
from support.shards import shard, table
from thawnet.core.errors import DataError, ImageError
from thawnet.data.items import Items, Source, unwatched
from thawnet.data.sources import archives
from thawnet.data.sources.class_names import with_class_names
from thawnet.data.sources.open import open_source
from thawnet.data.sources.pickles import PickleRefusedError, read_pickle
from thawnet.data.sources.table import from_table

FILES = {"a/1.png": b"one", "a/2.png": b"two" * 300, "b/c/3.png": b"", "labels.csv": b"path,label"}
OUT = b"a file outside"


class Archive(Target):
    """An archive of a folder, unpacked into the cache."""

    def read(self, path: Path) -> None:
        cache = self.folder / "cache"  # as THAWNET_CACHE says
        try:
            unpacked = archives.unpack(path, unwatched, lambda text: None)
            for entry in unpacked.rglob("*"):
                assert not entry.is_symlink(), f"{entry} is a link"
                assert entry.is_dir() or entry.is_file(), f"{entry} is no file"
        finally:
            shutil.rmtree(cache, ignore_errors=True)


class Zip(Archive):
    """Zip files, stored and packed, of other systems too."""

    file = "hostile.zip"
    tokens = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07",
              b"\x0e\x00")  # fmt: skip

    def seeds(self) -> list[bytes]:
        return [
            zipped(how) for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
        ]


def zipped(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in FILES.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
        archive.comment = b"comment"
    return file.getvalue()


class Tar(Archive):
    """Tar files, plain and packed; checksums of headers are put right again, mostly."""

    file = "hostile.tar"
    tokens = (b"ustar\x0000", b"ustar  \0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"00000000000\0",
              b"-0000001000\0", b"30 mtime=1.5\n", b"19 size=-512\n", b"22 GNU.sparse.major=1\n",
              *b"1 2 5 x g L K S V".split())  # fmt: skip

    def seeds(self) -> list[bytes]:
        return [
            tarred(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
        ]

    def inputs(self) -> st.SearchStrategy[bytes]:
        """Spoil the tar inside or what it is packed by."""
        inside = super().inputs()
        pack = st.sampled_from((bytes, partial(gzip.compress, mtime=0), lzma.compress))
        packed = [pack(seed) for seed in self.seeds() for pack in (gzip.compress, lzma.compress)]
        whole = st.builds(lambda pack, content: pack(content), pack, inside.map(with_checksums))
        return whole | inside | spoilt(packed, self.tokens)


def tarred(form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, content in {**FILES, "d/" + "long " * 18 + ".png": b"x"}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5 if form == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


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

    file = "hostile"
    tokens = (
        *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"j\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f"),
        *(b"r\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 7 + b"\x7f", b"q\xff", b"h\x00"),
        *(b"R", b"b", b"\x81", b"\x93", b"o", b"i", b"\x94", b"2", b"(", b"t", b"e", b"u", b"."),
    )

    def seeds(self) -> list[bytes]:
        batch = {b"data": np.arange(24, dtype=np.uint8).reshape(2, 12), b"fine_labels": [1, 2]}
        names = {"fine_label_names": ["apple", b"bear"], "n": 2.5, "none": None}
        return [pickle.dumps(table, protocol) for table in (batch, names) for protocol in (0, 2, 4)]

    def read(self, path: Path) -> None:
        """As data/sources/cifar.py does."""
        try:
            read_pickle(path.read_bytes())
        except PickleRefusedError as error:
            raise DataError(f"it is refused: {error}") from error


class Shard(Target):
    """Parquet shards in the layout of the hub, and as pandas and polars write them."""

    file = "shards/train-00000-of-00001.parquet"
    megabytes = 600

    def seeds(self) -> list[bytes]:
        image = {"bytes": encoded(draw(0, 0, (24, 16))), "path": None}
        images = [image, None, {"bytes": b"", "path": "x"}]
        beside = [{"bytes": None, "path": name} for name in ("in.png", "../out.png")] * 6
        words, numbers, some = ["a", "b", None] * 4, [1.0, None, 2.0] * 4, [True, False] * 6
        return [
            *(
                shard(images * 4, [0, 1, 1] * 4, ["a", "b"], compression=how, row_group_size=6)
                for how in ("none", "snappy", "zstd", "gzip")
            ),
            *(
                table({"image": cells, "label": labels}, compression="none", **how)
                for cells in (beside, [b"1", None, b"3"] * 4)
                for labels in (words, numbers, some)
                for how in ({}, {"use_dictionary": False})
            ),
        ]

    def read(self, path: Path) -> None:
        """Open it; one of the images that it may name is there, and one is out of reach."""
        (path.parent / "in.png").write_bytes(b"in")
        (path.parent.parent / "out.png").write_bytes(OUT)
        items = open_source(str(path.parent)).open_part("train")
        for row in range(len(items)):
            with contextlib.suppress(ImageError, OSError):  # broken images
                assert items.read(row) != OUT


class Table(Target):
    """CSV tables that came out of an archive, as several programs write them."""

    file = "hostile.csv"
    tokens = (b'"', b"\n", b",", b"\r", b";", b"val", b"\xef\xbb\xbf", b'"\n"', b"\0", b"\xff\xfe",
              b"\t", b"|", b"sep=;\n", b"a", b"is_valid", b"\\", b"nan", b"\x81")  # fmt: skip

    def seeds(self) -> list[bytes]:
        return [
            b"path,label\na.png,x\nb.png,y\n",
            "path,label,split,group\na.png,x,train,1\nb.png,köttur,val,2\nc.png,x,test,\n".encode(),
            b'\xef\xbb\xbfpath,label\r\n"a.png","x, y"\r\nb.png,z\r\n',
            "sep=;\nid;breed;is_valid\na;köttur;False\nb;hundur;False\nc;köttur;True\n".encode(
                "cp1252"
            ),
            "image\tclass\nC:\\x\\a.png\tx\nC:\\x\\b.png\ty\nC:\\x\\c\tx\n".encode("utf-16"),
            b",filename,sex,label\n0,a.png,f,x\n1,b.png,m,y\n2,c.png,f,nan\n",
        ]

    def read(self, path: Path) -> None:
        """Open it; three of the images that it may name are there."""
        for name in ("a.png", "b.png", "c.png"):
            (self.folder / name).touch()
        source = from_table(path, confined=True)
        for part in source.parts:
            source.open_part(part)


class ClassNames(Target):
    """Files of names to give to classes."""

    file = "names.txt"
    tokens = (b"n01", b"n02 wild", b"\n", b",", b'"', b"{", b"[", b": ", b"\xef\xbb\xbf")

    def seeds(self) -> list[bytes]:
        return [
            "n01 zebra\nn02;gnu, wildebeest\nn02 wild = Äffin\n".encode(),
            json.dumps({"n01": "zebra", "n02": "gnu"}).encode(),
            json.dumps({"0": ["n01", "zebra"], "1": ["n02", "gnu"]}).encode(),
        ]

    def read(self, path: Path) -> None:
        items = Items(["a", "b", "c"], np.arange(3), np.zeros((3, 32), np.uint8), lambda _: b"")
        source = Source(
            "some", ("n01", "n02", "n02 wild"), frozenset({"train"}), lambda _part: items
        )
        with_class_names(source, path).open_part("train")
