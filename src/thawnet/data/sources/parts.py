"""The parts of a source whose images are files, each labelled by its folder or its name."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError, suggest
from ...core.text import counted
from ..items import PARTS, Items, Source, Watch
from ..listing import listed_items
from ..names import Names


@dataclass(frozen=True)
class Listing:
    """The image files of one part."""

    names: Names
    """Names of the images with a class, relative to the data's folder."""
    labels: NDArray[np.int64]
    """Class indices, (n,)."""
    unknown: Sequence[str] = ()
    """Classes that train lacks."""
    unlabelled: int = 0
    """Number of images without a class, or of an unknown one."""


def files_source(
    path: Path,
    classes: tuple[str, ...],
    roots: Mapping[str, Path],
    listings: Mapping[str, Listing],
    notes: Iterable[str],
    watch: Watch,
) -> Source:
    """Return the source formed by listed files.

    A val or test part without any label is left out, with a note. A part that mixes classes of
    train with others, or misspells them, raises DataError when it is checked or opened.
    """
    said, unlabelled = [], []
    parts = []
    for part, listing in listings.items():
        root = roots[part]
        if part not in PARTS and len(listing.names):
            raise DataError(
                f"'{root}' holds images with classes; call it test/ or val/, or move it"
            )
        if len(listing.names) or _misspelt(listing.unknown, classes):
            parts.append(part)
        elif listing.unlabelled:
            said.append(
                f"left out: '{root}', {counted(listing.unlabelled, 'image')} without a class of "
                "train; thawnet predict can classify them"
            )
            unlabelled.append(str(root))
        else:
            said.append(f"left out: '{root}', which holds no image")

    def check_part(part: str) -> None:
        unknown = listings[part].unknown
        if unknown:
            raise DataError(
                f"'{roots[part]}' has a class that train lacks: '{unknown[0]}'; "
                + suggest(unknown[0], classes)
            )

    def open_part(part: str) -> Items:
        check_part(part)
        return listed_items(path, listings[part].names, listings[part].labels, part, watch)

    return Source(
        name=path.resolve().name,
        classes=classes,
        parts=frozenset(parts),
        open_part=open_part,
        notes=(*notes, *said),
        check_part=check_part,
        unlabelled=tuple(unlabelled),
    )


def check_names_differ(classes: Iterable[str], where: str) -> None:
    """Raise DataError if two class names differ only by case, or by how accents are encoded."""
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(unicodedata.normalize("NFC", name.casefold()), name)
        if other != name:
            raise DataError(
                f"{where}: '{other}' and '{name}' differ only by upper and lower case; "
                "merge the two or rename one"
            )


def _misspelt(names: Sequence[str], classes: Sequence[str]) -> bool:
    """Return whether any of these unknown names is a misspelt class, as Cats is of cat."""
    folded = [name.casefold() for name in classes]
    if not {name.casefold() for name in names}.isdisjoint(folded):
        return True
    return any(difflib.get_close_matches(name.casefold(), folded, 1, 0.8) for name in names[:3])
