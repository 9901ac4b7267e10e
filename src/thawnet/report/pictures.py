"""What a report shows of images: them, small; class maps to lay over them; an audit with copies."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..audit.contents import Audit, Part
from ..bundle.model import Explanation
from ..core.errors import ImageError
from ..data.items import Source
from ..data.listing import read_or_reason
from ..image.decode import decode
from .content import Copies, DataAudit, Picture

SIDE = 112  # pixels; photos are reduced to this, smaller images stay as they are
SMALL = 48  # pixels; up to this, what is lost in storing would show when it is enlarged
QUALITY = 78
# Matplotlib's inferno at six places: from dark to light in even steps, also without colour.
COLOURS = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))
OPACITY = 150  # of 255, where a map is brightest
COPIES = 12  # groups of copies that are shown
MEMBERS = 4  # images of a group
EXTREMES = 5  # smallest and largest classes

# What audit.Scope means, in words.
SCOPES = {
    "parts and classes": "in two parts, under two classes",
    "parts": "in two parts",
    "classes": "under two classes",
    "one class": "twice in one class",
}


def picture(name: str, image: Image.Image, explanation: Explanation | None = None) -> Picture:
    """Return an image, small. explanation: of a prediction made from it; its first map is added."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=QUALITY if max(small.size) > SMALL else 95, method=4)
    width, height = small.size
    if explanation is None:
        return Picture(name, stream.getvalue(), "image/webp", width, height)
    overlay = coloured(explanation.maps[0])
    return Picture(name, stream.getvalue(), "image/webp", width, height, overlay, explanation.box)


def coloured(values: NDArray[np.float32]) -> bytes:
    """Return a class map, (h, w) in [0, 1], as a PNG of as many pixels; 0 is see-through."""
    stops = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(values, stops, [colour[each] for colour in COLOURS]) for each in range(3)]
    pixels = np.stack([*channels, OPACITY * values], axis=2).round().astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def picture_audit(audit: Audit, source: Source) -> DataAudit:
    """Return an audit as a report shows it, with pictures of the worst copies.

    source: what was audited.
    """
    groups = audit.groups[:COPIES]
    wanted = {(each.part, each.name) for group in groups for each in group.pictures[:MEMBERS]}
    found = _found(source, wanted)
    train = audit.parts[0]
    ordered = sorted(train.counts.items(), key=lambda item: (item[1], item[0]))
    return DataAudit(
        name=audit.name,
        classes=len(audit.classes),
        images=sum(part.images for part in audit.parts),
        header=["part", "images", "MB", "width", "height", "stored as"],
        rows=[_row(part) for part in audit.parts],
        smallest=ordered[:EXTREMES],
        largest=ordered[: -EXTREMES - 1 : -1],
        findings=[(each.what, each.todo) for each in audit.findings],
        copies=[
            Copies(
                kind="the same pixels"
                if group.exact
                else f"{'mirrored' if group.mirrored else 'nearly the same'}, "
                f"similarity {group.similarity:.2f}",
                scope=SCOPES[group.scope],
                members=[
                    (each.part, each.label, found.get((each.part, each.name)))
                    for each in group.pictures[:MEMBERS]
                ],
            )
            for group in groups
        ],
        groups=len(audit.groups),
        notes=list(audit.notes),
    )


def _found(source: Source, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], Picture]:
    """Return pictures of images by part and name; what cannot be read any more is left out."""
    pictures: dict[tuple[str, str], Picture] = {}
    for part in {part for part, _ in wanted}:
        items = source.open_part(part)
        places = {name: place for place, name in enumerate(items.names)}
        for name in sorted(name for home, name in wanted if home == part):
            raw = read_or_reason(items, places[name])
            if isinstance(raw, str):
                continue
            try:
                image = decode(raw, SIDE) if isinstance(raw, bytes) else Image.fromarray(raw)
            except ImageError:
                continue
            pictures[part, name] = picture(name, image)
    return pictures


def _row(part: Part) -> list[str]:
    kinds = [*part.formats, *part.modes]
    if part.turned:
        kinds.append(f"{part.turned:,} turned by EXIF")
    return [
        part.name,
        f"{part.images:,}",
        f"{part.stored_bytes / 1e6:,.1f}",
        _range(part.width),
        _range(part.height),
        ", ".join(kinds),
    ]


def _range(values: Sequence[int]) -> str:
    least, middle, most = values
    return f"{least:,}" if least == most else f"{least:,} to {most:,}, median {middle:,}"
