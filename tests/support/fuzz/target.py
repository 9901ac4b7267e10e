"""What a target of the fuzzer is, and the pictures that several hold."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from support.fuzz.mutate import mutated
from thawnet.core.errors import DataError


class Target:
    """A reader of something from outside.

    refusals: what it may raise. megabytes: the most memory that it may take beyond what it has
    after its first valid input.
    """

    name: ClassVar[str]
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
