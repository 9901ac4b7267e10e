"""Folders of class folders."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from ..errors import DataError, suggest
from ..image.decode import SUFFIXES
from .items import VALIDATION_NAMES, Items, Source


def from_class_folders(path: Path) -> Source:
    """Return the source that <class>/*, or train/<class>/*, val/... and test/..., form.

    Raises DataError when there are no classes, one only, an empty or an unknown one.
    """
    folders = _visible_folders(path)
    roots: dict[str, Path] = {}
    if (path / "train").is_dir():
        roots = {"train": path / "train"}
        held_out = [(word, "val") for word in VALIDATION_NAMES] + [("test", "test")]
        roots |= {part: path / word for word, part in held_out if (path / word).is_dir()}
        extra = [folder for folder in folders if path / folder not in roots.values()]
        if extra:
            raise DataError(
                f"'{path}' has train/ and also {', '.join(f'{name}/' for name in extra[:4])}; "
                "expected only train/, val/ and test/ beside each other"
            )
    else:
        roots = {"train": path}
    classes = _visible_folders(roots["train"])
    if not classes:
        raise DataError(
            f"no data at '{path}': expected a folder per class with images in it, as in "
            f"{path.name}/cat/1.jpg, {path.name}/dog/7.jpg"
        )
    if len(classes) == 1:
        raise DataError(
            f"'{roots['train']}' holds one class only ('{classes[0]}'); "
            "a classifier needs at least two"
        )
    listings = {part: _list_images(root, classes) for part, root in roots.items()}
    for name, files in zip(classes, listings["train"][0], strict=True):
        if not files:
            raise DataError(
                f"class folder '{roots['train'] / name}' holds no image; add images or remove it"
            )
    ignored = sum(skipped for _, skipped in listings.values())
    notes = (f"{ignored:,} files are left out: not named like images",) if ignored else ()
    return Source(
        name=path.resolve().name,
        classes=tuple(classes),
        parts=frozenset(roots),
        open_part=lambda part: _read_folder(path, listings[part][0]),
        notes=notes,
    )


def _visible_folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")


def _list_images(root: Path, classes: list[str]) -> tuple[list[list[Path]], int]:
    """Return the image files of each class, sorted, and how many other files were passed over."""
    unknown = [name for name in _visible_folders(root) if name not in classes]
    if unknown:
        raise DataError(
            f"'{root}' has a class that train lacks: '{unknown[0]}'; {suggest(unknown[0], classes)}"
        )
    found: list[list[Path]] = []
    skipped = 0
    for name in classes:
        files: list[Path] = []
        for folder, inner, names in os.walk(root / name):
            inner[:] = sorted(word for word in inner if word[0] != ".")
            for word in sorted(names):
                if word[0] == ".":
                    continue
                if Path(word).suffix.lower() in SUFFIXES:
                    files.append(Path(folder, word))
                else:
                    skipped += 1
        found.append(files)
    return found, skipped


def _read_folder(root: Path, listing: list[list[Path]]) -> Items:
    files = [file for group in listing for file in group]
    return Items(
        names=[file.relative_to(root).as_posix() for file in files],
        labels=np.repeat(np.arange(len(listing)), [len(group) for group in listing]),
        hashes=[_hash_or_name(file) for file in files],
        read=lambda position: files[position].read_bytes(),
    )


def _hash_or_name(file: Path) -> bytes:
    """A file that can not be opened keeps a hash of its own; the store lists it as broken."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return hashlib.sha256(os.fsencode(file)).digest()
