"""Data sets with a folder per class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...core.errors import DataError
from ...core.text import counted
from ..items import Source, Watch, unwatched
from ..names import Names
from .file_names import offer
from .layout import SORTED, UNSURE, ClassFolders, class_folders, part_roots, require_classes
from .parts import Listing, check_names_differ, files_source
from .visible import Skipped, walk


def from_class_folders(path: Path, watch: Watch = unwatched) -> Source:
    """Return the source formed by <class>/*, or by train/<class>/*, val/<class>/*, test/<class>/*.

    Hidden files and leftovers of other programs are skipped, and links to folders inside a class
    are not followed. A val or test part without classes is left out, see parts.files_source.
    Raises DataError if there are no classes or only one, if a class has images in another part but
    none in train, or if two names differ only by case.
    """
    skipped = Skipped()
    roots = part_roots(path, skipped)
    folders = {part: class_folders(root, skipped) for part, root in roots.items()}
    root, train = roots["train"], folders["train"]
    if not train.names:
        raise DataError(_no_classes(root, train.loose))
    classes = tuple(sorted(train.names))
    if root == path:
        require_classes(path, train.names.values())
    check_names_differ(classes, f"class folders of '{root}'")
    if len(classes) == 1:
        raise DataError(
            f"'{root}' holds one class only ('{classes[0]}'); "
            f"a classifier needs at least two{offer(root)}"
        )
    listings = {
        part: _listing(path, roots[part], folders[part], classes, skipped) for part in roots
    }
    filled = np.bincount(listings["train"].labels, minlength=len(classes)) > 0
    empty = [
        root / train.names[name] for name, some in zip(classes, filled, strict=True) if not some
    ]
    if empty:
        tested = any(not filled[listing.labels].all() for listing in listings.values())
        if tested or filled.sum() < 2:
            named = offer(root) if filled.sum() == 1 else ""
            raise DataError(
                f"class folder '{empty[0]}' holds no image; add images or remove it{named}"
            )
        position = np.cumsum(filled) - 1
        listings = {
            part: replace(listing, labels=position[listing.labels])
            for part, listing in listings.items()
        }
        classes = tuple(name for name, some in zip(classes, filled, strict=True) if some)
    loose = sum(folders[part].loose for part, listing in listings.items() if not listing.unlabelled)
    notes = (*skipped.notes(), *_notes(loose, train, empty))
    return files_source(path, classes, roots, listings, notes, watch)


def _no_classes(root: Path, loose: int) -> str:
    example = f"as in {root.name}/cat/1.jpg, {root.name}/dog/7.jpg"
    if loose:
        return (
            f"'{root}' holds {counted(loose, 'image')} directly and no class folders; make a "
            f"folder per class, {example}, with 10 images or more in each, train on these and let "
            "`thawnet predict` sort the others (--sort-into); or list them in a CSV file with the "
            f"columns path,label{offer(root)}"
        )
    return f"no data at '{root}': expected a folder per class with images in it, {example}"


def _listing(
    path: Path, root: Path, folders: ClassFolders, classes: tuple[str, ...], skipped: Skipped
) -> Listing:
    """List the images of each class under a part's folder, class by class."""
    counts = [0] * len(classes)
    prefix = "" if root == path else f"{root.name}/"

    def names() -> Iterator[str]:
        for label, name in enumerate(classes):
            if name in folders.names:
                folder = folders.names[name]
                for image in walk(root / folder, f"{prefix}{folder}/", skipped):
                    counts[label] += 1
                    yield image

    listed = Names(names())
    unknown = sorted(folders.names.keys() - set(classes))
    unlabelled = 0
    if not len(listed):
        below = (walk(root / folders.names[name], "", skipped) for name in unknown)
        unlabelled = folders.loose + folders.unsure + sum(1 for images in below for _ in images)
    return Listing(listed, np.repeat(np.arange(len(classes)), counts), unknown, unlabelled)


def _notes(loose: int, train: ClassFolders, empty: list[Path]) -> Iterator[str]:
    if empty:
        more = f" and {len(empty) - 1:,} more" if len(empty) > 1 else ""
        yield f"left out: class folder '{empty[0]}'{more}, which holds no image"
    if train.sorted:
        yield (
            f"a network sorted these images ({SORTED}): correct the folders by hand first, or the "
            "accuracy only says how far it agrees with itself"
        )
    if loose:
        yield f"left out: {_images_lie(loose)} beside the class folders, not in one"
    if train.unsure:
        lie = _images_lie(train.unsure)
        yield f"left out: {lie} in {UNSURE}/; file them by class, or leave them"


def _images_lie(count: int) -> str:
    return f"{counted(count, 'image')} {'lies' if count == 1 else 'lie'}"
