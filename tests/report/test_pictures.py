"""Pictures of a report: small, and class maps that can be laid over them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from support.photos import draw
from thawnet.audit.audit import audit
from thawnet.bundle.model import Explanation
from thawnet.data.sources.open import open_source
from thawnet.report.pictures import SIDE, coloured, copies_of, picture


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_photo_is_made_small_and_a_small_image_is_kept() -> None:
    large = picture("a.jpg", draw(1, 1, (800, 400)))
    assert (large.width, large.height) == (SIDE, SIDE // 2) == decoded(large.data).size
    assert len(large.data) < 10_000
    small = picture("b.png", draw(1, 1, (32, 32)))
    assert (small.width, small.height) == (32, 32)
    pixels = np.asarray(decoded(small.data).convert("RGB"), np.int16)
    assert np.abs(pixels - np.asarray(draw(1, 1, (32, 32)), np.int16)).mean() < 12


def test_map_is_see_through_where_the_class_is_not() -> None:
    values = np.array([[0.0, 0.5], [1.0, 0.25]], np.float32)
    found = np.asarray(decoded(coloured(values)))
    assert found.shape == (2, 2, 4)
    alpha, light = found[..., 3].astype(int), found[..., :3].astype(int).sum(axis=2)
    assert alpha[0, 0] == 0
    assert np.argsort(alpha.ravel()).tolist() == np.argsort(values.ravel()).tolist()
    assert np.argsort(light.ravel()).tolist() == np.argsort(values.ravel()).tolist()


def test_explanation_becomes_overlay_and_box() -> None:
    maps = np.ones((1, 3, 3), np.float32)
    found = picture("a", draw(0, 0), Explanation((0.1, 0.2, 0.9, 0.8), maps))
    assert found.box == (0.1, 0.2, 0.9, 0.8)
    assert found.overlay is not None
    assert decoded(found.overlay).size == (3, 3)


def test_copies_are_shown_as_pictures(photos: Callable[..., Path]) -> None:
    folder = photos({"a": 12, "b": 12})
    (folder / "b" / "copy.png").write_bytes((folder / "a" / "003.png").read_bytes())
    source = open_source(str(folder))
    copies = copies_of(audit(source, 32), source)
    group, members = copies[0]
    assert group.exact
    assert {member.label for member, _ in members} == {"a", "b"}
    assert all(shown is not None for _, shown in members)
