"""What is fuzzed: each target's valid inputs, how they are spoilt, and the reader that gets them.

A new target is a class (target.py) with `seeds`, `run` and, where spoilt bytes will not do,
`make`, and its place in TARGETS.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from support.fuzz.bundle import network, write_bundle
from support.fuzz.data import Pickle, Shard, Table, Tar, Zip
from support.fuzz.mutate import mutated, spoilt, toml
from support.fuzz.requests import Request
from support.fuzz.target import Target, encoded, picture
from thawnet import embedded
from thawnet.bundle.format import read_description, write_safetensors
from thawnet.bundle.model import load
from thawnet.core.errors import BundleError, ImageError, RecipeError, WeightsError
from thawnet.image.decode import decode
from thawnet.image.preprocess import reduce
from thawnet.recipe import load_recipe, to_table


class Decode(Target):
    """Images of every format."""

    name = "decode"
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


class Described(Target):
    """model.json of a bundle."""

    name = "model.json"
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
        *(Decode, Zip, Tar, Pickle, Shard, Table, Described, Onnx, Weights, Toml),
        Request,
    )
}
