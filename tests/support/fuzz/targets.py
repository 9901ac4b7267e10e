"""What is fuzzed: each target's valid inputs, how they are spoilt, and the reader that gets them.

A new target is a class (target.py) with `file`, `seeds`, `read` and, where spoilt bytes will not
do, `inputs`, and its place in TARGETS.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from hypothesis import strategies as st
from PIL import Image

from support.fuzz.bundle import network, write_bundle
from support.fuzz.data import ClassNames, Pickle, Shard, Table, Tar, Zip
from support.fuzz.target import Target, spoilt, spoilt_fields
from support.photos import DISPLAY_P3, draw, encoded, profile_of
from support.service import BOUNDARY, form
from thawnet import embedded
from thawnet.bundle.format import read_description, write_safetensors
from thawnet.bundle.model import load
from thawnet.core.errors import BundleError, ImageError, RecipeError, WeightsError
from thawnet.image.decode import decode
from thawnet.image.heic import add_heic
from thawnet.image.preprocess import Reduction, reduce
from thawnet.recipe import load_recipe, to_table
from thawnet.serve.intake import Limits, reader_of
from thawnet.serve.refusals import Refused


class Decode(Target):
    """Images of every format."""

    file = "hostile"
    refusals = (ImageError,)
    megabytes = 1600  # 64 million pixels as RGBA, over white, and as RGB
    tokens = (
        *b"IHDR IDAT acTL fcTL iCCP zTXt tRNS PLTE eXIf RIFF WEBP VP8X ANMF GIF89a BM".split(),
        *(b"Exif\0\0", b"II*\0", b"MM\0*", b"P3\n", b"P6\n"),
        *(b"\xff\xd8", b"\xff\xc0", b"\xff\xda", b"\xff\xe1"),
    )

    def seeds(self) -> list[bytes]:
        """Return every format and mode, small: what is at fault is in the headers."""
        image = draw(0, 0, (24, 16))
        exif = Image.Exif()
        exif[0x0112] = 6
        frames: dict[str, Any] = {"save_all": True, "append_images": [image.convert("L")]}
        modes = {
            "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
            "TIFF": ("CMYK", "I", "F", "1", "RGBA"),
            "WEBP": ("RGB", "RGBA"),
            "BMP": ("RGB", "P", "1", "RGBA"),
            "PPM": ("RGB", "L", "1"),
            "JPEG": ("CMYK",),
        }
        return [
            *(encoded(image.convert(mode), kind) for kind in modes for mode in modes[kind]),
            *(encoded(image, "JPEG", quality=q, progressive=q > 80) for q in (50, 90)),
            encoded(image, "JPEG", exif=exif, icc_profile=b"x" * 200),
            encoded(Image.fromarray(np.full((16, 24), 40_000, np.uint16)), "PNG", exif=exif),
            *(encoded(image, "TIFF", compression=how) for how in (None, "tiff_lzw", "jpeg")),
            encoded(image, "PNG", icc_profile=profile_of(*DISPLAY_P3)),
            encoded(image, "AVIF", icc_profile=profile_of(*DISPLAY_P3)),
            encoded(image, add_heic(), exif=exif),
            encoded(image, "WEBP", lossless=True),
            *(
                encoded(image.convert("P"), kind, **frames)
                for kind in ("GIF", "PNG", "WEBP", "TIFF")
            ),
            b"P3\n2 2\n255\n1 2 3 4 5 6 7 8 9 10 11 12\n",
        ]

    def read(self, path: Path) -> None:
        reduce(decode(path.read_bytes(), 32), Reduction(32))


class Described(Target):
    """model.json of a bundle."""

    file = "model.json"
    refusals = (BundleError,)
    tokens = (b"[" * 5000, b'{"a":' * 5000, b"\\ud800", b"1" * 5000)

    def seeds(self) -> list[bytes]:
        fields = json.loads((embedded.BUNDLE / "model.json").read_text(encoding="utf-8"))
        fields["classes"] = fields["classes"][:3]
        return [json.dumps(fields).encode()]

    def inputs(self) -> st.SearchStrategy[bytes]:
        fields = spoilt_fields(json.loads(self.seeds()[0]))
        return super().inputs() | fields.map(lambda fields: json.dumps(fields).encode())

    def read(self, path: Path) -> None:
        """Read it, and what is checked of it against the network."""
        _ = read_description(path.parent).meaning.marks


class Toml(Target):
    """Recipe files."""

    file = "hostile.toml"
    refusals = (RecipeError,)
    tokens = (b"[" * 500, b"{a=" * 500, b"a." * 5000 + b"a=1\n", b"1" * 5000, b'"""', b"[[a]]")

    def seeds(self) -> list[bytes]:
        return [tomli_w.dumps(to_table(load_recipe(name))).encode() for name in ("quick", "seed")]

    def inputs(self) -> st.SearchStrategy[bytes]:
        fields = spoilt_fields(to_table(load_recipe("quick")))
        texts = fields.map(lambda fields: tomli_w.dumps(fields).encode(errors="surrogatepass"))
        return super().inputs() | texts

    def read(self, path: Path) -> None:
        load_recipe(str(path))


class Onnx(Target):
    """model.onnx of a bundle, opened under a model.json that fits, and asked for a prediction."""

    file = "model.onnx"
    refusals = (BundleError,)
    megabytes = 1000
    tokens = (*b"Loop If Scan \x70\x01 \x7a images logits Conv Reshape".split(),)

    def seeds(self) -> list[bytes]:
        return [network(), network(convolution=True)]

    def read(self, path: Path) -> None:
        write_bundle(path.parent, path.read_bytes())
        load(path.parent, threads=1).predict([Image.new("RGB", (9, 9))])


class Weights(Target):
    """Weights for a backbone, as --weights takes them."""

    file = "hostile.safetensors"
    refusals = (WeightsError,)
    tokens = (b'"dtype":"F8_E4M3"', b'"dtype":"F4"', b'"dtype":"C64"', b'"dtype":"BOOL"', b"[0,8]",
              b"__metadata__", b'"shape":[9223372036854775807,9]', b"[8,0]")  # fmt: skip

    def seeds(self) -> list[bytes]:
        import torch

        tensors = {"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.float16)}
        files = []
        for metadata in ({}, {"bn_eps": "0.001", "mean": "0.5,0.5,0.5", "std": "1,1,1"}):
            file = io.BytesIO()
            write_safetensors(file, tensors, metadata)
            files.append(file.getvalue())
        return files

    def read(self, path: Path) -> None:
        """Read them; whether they fit is no question of safety."""
        from thawnet.model.weights import load_weights

        load_weights(str(path), "mobilenetv2_100")


class TorchWeights(Weights):
    """The same as PyTorch writes them, today and before 1.6."""

    file = "hostile.pth"
    tokens = (b"archive/data.pkl", b"_rebuild_tensor_v2", b"ctorch\n", b"FloatStorage", b"\x80\x02",
              b"cbuiltins\neval\n", b"cos\nsystem\n", b"\x8a\x08", b"tR.", b"q\xff")  # fmt: skip

    def seeds(self) -> list[bytes]:
        import torch

        tensors = {"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.float16)}
        files = []
        for modern in (True, False):
            file = io.BytesIO()
            torch.save(
                {"state_dict": tensors, "epoch": 1}, file, _use_new_zipfile_serialization=modern
            )
            files.append(file.getvalue())
        return files


class Request(Target):
    """A request of the service: its Content-Type, a line break, and the body."""

    file = "hostile"
    refusals = (Refused,)
    tokens = (
        *b"--edge --edge-- multipart/form-data; boundary=edge image/png".split(),
        *(b"\r\n", b"\r\n\r\n", b"\r\n--edge\r\n", b"\r\n--edge--\r\n", b"\n--edge\n"),
        *(b'Content-Disposition: form-data; name="x"; filename="', b"filename*=utf-8''x"),
        *(b"Content-Transfer-Encoding: base64\r\n", b"boundary=" + b"b" * 500, b"\0", b"\xff"),
    )

    def seeds(self) -> list[bytes]:
        image = encoded(draw(0, 0, (24, 16)))
        one, field = ("a.png", image), (None, b"words")
        return [
            b"image/png\n" + image,
            *(HEAD + form(*parts) for parts in ([one], [one] * 3, [field, one, field])),
        ]

    def inputs(self) -> st.SearchStrategy[bytes]:
        """Spoil everything, or the body alone, so that most reach the reader of forms."""
        bodies = [seed.removeprefix(HEAD) for seed in self.seeds()[1:]]
        return super().inputs() | spoilt(bodies, self.tokens).map(lambda body: HEAD + body)

    def read(self, path: Path) -> None:
        kind, _, body = path.read_bytes().partition(b"\n")
        reader = reader_of(kind.decode("latin-1"), Limits())
        for start in range(0, len(body), 700):  # as it comes, in pieces
            reader.write(body[start : start + 700])
        reader.images()


HEAD = f"multipart/form-data; boundary={BOUNDARY}\n".encode()
TARGETS = (
    *(Decode, Zip, Tar, Pickle, Shard, Table, ClassNames),
    *(Described, Onnx, Weights, TorchWeights, Toml, Request),
)
