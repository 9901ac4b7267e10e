"""Thumbnails for a page, class maps to overlay on them, and pictures of copies in a data set."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..audit.contents import Audit, Member
from ..bundle.model import Explanation
from ..core.errors import ImageError
from ..data.items import Items, Source
from ..data.listing import read_or_reason
from ..image.decode import decode
from .content import Copies, Picture

SIDE = 160  # pixels; photos are reduced to this, smaller images stay as they are
SMALL = 48  # pixels; images up to this are enlarged on the page, which would show losses
QUALITY = 78
# Matplotlib's inferno at six points: evenly from dark to light, so it works without colour too.
COLOURS = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))
OPACITY = 150  # of 255, at a map's maximum
COPIES = 12  # groups of copies shown
MEMBERS = 4  # images shown per group


def picture(name: str, image: Image.Image, explanation: Explanation | None = None) -> Picture:
    """Return a thumbnail. explanation: that of the image's prediction; its first map is added."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=QUALITY if max(small.size) > SMALL else 95, method=4)
    width, height = small.size
    if explanation is None:
        return Picture(name, stream.getvalue(), width, height)
    overlay = coloured(explanation.maps[0])
    return Picture(name, stream.getvalue(), width, height, overlay, explanation.box)


def coloured(values: NDArray[np.float32]) -> bytes:
    """Return a class map, (h, w) in [0, 1], as a PNG, one pixel per cell; 0 is transparent."""
    stops = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(values, stops, [colour[rgb] for colour in COLOURS]) for rgb in range(3)]
    pixels = np.stack([*channels, OPACITY * values], axis=2).round().astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def copies_of(audit: Audit, source: Source) -> Copies:
    """Return the worst copies that an audit of `source` found, with pictures of their first images.

    A picture is None if the image can no longer be read.
    """

    @cache
    def opened(part: str) -> tuple[Items, dict[str, int]]:
        items = source.open_part(part)
        return items, {name: position for position, name in enumerate(items.names)}

    def pictured(member: Member) -> Picture | None:
        items, positions = opened(member.part)
        raw = read_or_reason(items, positions[member.name])
        if isinstance(raw, str):
            return None
        try:
            image = decode(raw, SIDE) if isinstance(raw, bytes) else Image.fromarray(raw)
        except ImageError:
            return None
        return picture(member.name, image)

    return [
        (group, [(member, pictured(member)) for member in group.pictures[:MEMBERS]])
        for group in audit.groups[:COPIES]
    ]
