"""What is fuzzed: each target's valid inputs, how they are spoilt, and the reader that gets them.

A new target is a class with `seeds`, `run` and, where plain bytes will not do, `make`, and a line
in TARGETS.
"""

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
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from fuzz_bundle import network, write_bundle
from fuzz_mutate import mutated, spoilt, toml
from thawnet import embedded
from thawnet.bundle.format import read_description, write_safetensors
from thawnet.bundle.predict import load
from thawnet.data import archives
from thawnet.data.items import unwatched
from thawnet.data.members import read_members
from thawnet.data.pickles import PickleRefusedError, read_pickle
from thawnet.data.sources import open_source
from thawnet.data.table import from_table
from thawnet.errors import BundleError, DataError, ImageError, RecipeError, WeightsError
from thawnet.image.decode import decode
from thawnet.image.preprocess import reduce
from thawnet.recipe import load_recipe, to_table


class Target:
    """A reader of something from outside.

    name: on the command line. inputs: how many it gets. refusals: what it may raise.
    megabytes: the most memory that it may take beyond what it has after its first valid input.
    """

    name: ClassVar[str]
    inputs: ClassVar[int]
    refusals: ClassVar[tuple[type[Exception], ...]] = (DataError,)
    megabytes: ClassVar[int] = 300
    tokens: ClassVar[tuple[bytes, ...]] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # the only one that may be written to

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """Valid inputs."""
        raise NotImplementedError

    def make(self, rng: random.Random) -> bytes:
        """Return a hostile input."""
        return mutated(rng, self.seeds, self.tokens)

    def run(self, content: bytes) -> None:
        """Read it; raises one of `refusals` where it is refused."""
        raise NotImplementedError


def picture(size: tuple[int, int] = (24, 16), mode: str = "RGB") -> Image.Image:
    """Return an image of noise, which no format packs away."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    """Return an image as a file holds it."""
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


class Decode(Target):
    """Images of every format."""

    name = "decode"
    inputs = 60_000
    refusals = (ImageError,)
    megabytes = 1600  # 64 million pixels as RGBA, over white, and as RGB
    tokens = (
        *b"IHDR IDAT acTL fcTL iCCP zTXt tRNS PLTE eXIf RIFF WEBP VP8X ANMF GIF89a BM".split(),
        *(b"Exif\0\0", b"II*\0", b"MM\0*", b"P3\n", b"P6\n"),
        *(b"\xff\xd8", b"\xff\xc0", b"\xff\xda", b"\xff\xe1"),
    )

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """Every format and mode, small: what is at fault is in the headers."""
        exif = Image.Exif()
        exif[0x0112] = 6
        frames = [picture(mode="P"), picture((24, 16), "L").convert("P")]
        more: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
        return [
            *(encoded(picture(), "JPEG", quality=q, progressive=q > 80) for q in (50, 90)),
            encoded(picture(mode="CMYK"), "JPEG"),
            encoded(picture(), "JPEG", exif=exif, icc_profile=b"x" * 200),
            *(encoded(picture(mode=mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
            encoded(Image.fromarray(np.full((16, 24), 40_000, np.uint16)), "PNG", exif=exif),
            *(encoded(picture(), "TIFF", compression=each) for each in (None, "tiff_lzw", "jpeg")),
            *(encoded(picture(mode=mode), "TIFF") for mode in ("CMYK", "I", "F", "1", "RGBA")),
            *(encoded(picture(mode=mode), "WEBP") for mode in ("RGB", "RGBA")),
            encoded(picture(), "WEBP", lossless=True),
            *(encoded(frames[0], kind, **more) for kind in ("GIF", "PNG", "WEBP", "TIFF")),
            *(encoded(picture(mode=mode), "BMP") for mode in ("RGB", "P", "1", "RGBA")),
            *(encoded(picture(mode=mode), "PPM") for mode in ("RGB", "L", "1")),
            b"P3\n2 2\n255\n1 2 3 4 5 6 7 8 9 10 11 12\n",
        ]

    def run(self, content: bytes) -> None:
        """Decode it as a store does."""
        reduce(decode(content, 32), 32)


class Archive(Target):
    """An archive of a folder, unpacked into the cache."""

    inputs = 15_000
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
        pack = rng.choice((None, None, gzip.compress, lzma.compress))
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


class Published(Target):
    """CIFAR's archive, of which members are read without unpacking."""

    name = "cifar"
    inputs = 15_000

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """The tars of the other target."""
        return Tar(self.folder).seeds

    def make(self, rng: random.Random) -> bytes:
        """As the other target."""
        return Tar(self.folder).make(rng)

    def run(self, content: bytes) -> None:
        """Read two members."""
        path = self.folder / "hostile.tar.gz"
        path.write_bytes(content)
        read_members(path, ("1.png", "3.png"), 10_000)


class Pickle(Target):
    """CIFAR's pickles, read as data."""

    name = "pickle"
    inputs = 30_000
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
        """Read it as data/cifar.py does."""
        try:
            read_pickle(content)
        except PickleRefusedError as error:
            raise DataError(f"it is refused: {error}") from error


class Shard(Target):
    """Parquet shards in the layout of the hub."""

    name = "shard"
    inputs = 8_000
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
    inputs = 15_000
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


class Described(Target):
    """model.json of a bundle."""

    name = "model.json"
    inputs = 30_000
    refusals = (BundleError,)

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """That of the embedded network, with three classes."""
        tree = json.loads((embedded.BUNDLE / "model.json").read_text(encoding="utf-8"))
        tree["classes"] = tree["classes"][:3]
        return [json.dumps(tree).encode()]

    def make(self, rng: random.Random) -> bytes:
        """Spoil its values, mostly; else its bytes."""
        if rng.random() < 0.3:
            return mutated(rng, self.seeds, (b"[" * 5000, b'{"a":' * 5000, b"\\ud800", b"1" * 5000))
        return json.dumps(spoilt(rng, json.loads(self.seeds[0]))).encode()

    def run(self, content: bytes) -> None:
        """Read it, and what is checked of it against the network."""
        (self.folder / "model.json").write_bytes(content)
        _ = read_description(self.folder).meaning.marks


class Toml(Target):
    """Recipe files."""

    name = "recipe"
    inputs = 30_000
    refusals = (RecipeError,)

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """The presets, complete."""
        return [toml(to_table(load_recipe(name))).encode() for name in ("quick", "seed")]

    def make(self, rng: random.Random) -> bytes:
        """Spoil its values, mostly; else its bytes."""
        if rng.random() < 0.3:
            tokens = (
                b"[" * 500,
                b"{a=" * 500,
                b"a." * 5000 + b"a=1\n",
                b"1" * 5000,
                b'"""',
                b"[[a]]",
            )
            return mutated(rng, self.seeds, tokens)
        tree = to_table(load_recipe("quick"))
        return toml(spoilt(rng, tree)).encode(errors="surrogatepass")

    def run(self, content: bytes) -> None:
        """Read it as --recipe does."""
        path = self.folder / "hostile.toml"
        path.write_bytes(content)
        load_recipe(str(path))


class Onnx(Target):
    """model.onnx of a bundle, opened and asked for one prediction."""

    name = "onnx"
    inputs = 8_000
    refusals = (BundleError,)
    megabytes = 1000
    tokens = (
        b"Loop",
        b"If",
        b"Scan",
        b"\x70\x01",
        b"\x7a",
        b"images",
        b"logits",
        b"Conv",
        b"Reshape",
    )

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """The smallest network that is one, and one with a convolution."""
        return [network(), network(convolution=True)]

    def run(self, content: bytes) -> None:
        """Open it under a model.json that describes it."""
        write_bundle(self.folder, content)
        load(self.folder, threads=1).predict([Image.new("RGB", (9, 9))])


class Weights(Target):
    """Weights for a backbone, as --weights takes them."""

    name = "safetensors"
    inputs = 4_000
    refusals = (WeightsError,)
    tokens = (b'"dtype":"F8_E4M3"', b'"dtype":"F4"', b'"dtype":"C64"', b'"dtype":"BOOL"', b"[0,8]",
              b"__metadata__", b'"shape":[9223372036854775807,9]', b"[8,0]")  # fmt: skip

    @cached_property
    def seeds(self) -> Sequence[bytes]:
        """Two tensors with the metadata that are read."""
        import torch

        found = []
        for told in ({}, {"bn_eps": "0.001", "mean": "0.5,0.5,0.5", "std": "1,1,1"}):
            file = io.BytesIO()
            tensors = {"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.float16)}
            write_safetensors(file, tensors, told)
            found.append(file.getvalue())
        return found

    def run(self, content: bytes) -> None:
        """Read them; whether they fit is no question of safety."""
        from thawnet.model.weights import load_weights

        path = self.folder / "hostile.safetensors"
        path.write_bytes(content)
        load_weights(str(path), "mobilenetv2_100")


TARGETS: dict[str, type[Target]] = {
    target.name: target
    for target in (
        *(Decode, Zip, Tar, Published, Pickle, Shard, Table, Described, Onnx, Weights, Toml),
    )
}
