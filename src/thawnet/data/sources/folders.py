"""Folders of class folders."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...core.errors import DataError, suggest
from ...core.text import counted
from ...image.decode import SUFFIXES
from ..items import VALIDATION_NAMES, Items, Source, Watch, unwatched
from ..listing import listed_items
from ..names import Names

SORTED = "sorted.csv"  # lists what `thawnet predict --sort-into` put where
UNSURE = "unsure"  # the folder beside it of images that no class was given
PART_WORDS = {"train", "training", "test", "testing", *VALIDATION_NAMES}


def from_class_folders(path: Path, watch: Watch = unwatched) -> Source:
    """Return the source that <class>/*, or train/<class>/*, val/... and test/..., form.

    Hidden files and folders are passed over, and links to folders inside a class are not followed.
    Raises DataError when there are no classes, one only, an empty or an unknown one, or two whose
    names differ only by case. A test part is checked when it is opened.
    """
    roots = _part_roots(path)
    train_folders = _class_folders(roots["train"])
    if not train_folders:
        raise DataError(_no_classes(roots["train"]))
    classes = tuple(sorted(train_folders))
    check_names_differ(classes, f"class folders of '{roots['train']}'")
    if len(classes) == 1:
        raise DataError(
            f"'{roots['train']}' holds one class only ('{classes[0]}'); "
            "a classifier needs at least two"
        )
    skipped = _Skipped()
    listings = {part: _list_images(path, root, classes, skipped) for part, root in roots.items()}
    for name, count in zip(classes, listings["train"].counts, strict=True):
        if not count:
            raise DataError(
                f"class folder '{roots['train'] / train_folders[name]}' holds no image; "
                "add images or remove it"
            )

    def check_part(part: str) -> None:
        listing, root = listings[part], roots[part]
        if listing.fault:
            raise DataError(listing.fault)
        if not len(listing.names):
            loose = _loose_images(root)
            directly = f"; {_images_lie(loose)} in it directly" if loose else ""
            raise DataError(
                f"'{root}' holds no image in a class folder{directly}; file them by class, as in "
                f"{root.name}/{classes[0]}/1.jpg, or move it elsewhere"
            )

    def open_part(part: str) -> Items:
        check_part(part)
        labels = np.repeat(np.arange(len(classes)), listings[part].counts)
        return listed_items(path, listings[part].names, labels, part, watch)

    return Source(
        name=path.resolve().name,
        classes=classes,
        parts=frozenset(roots),
        open_part=open_part,
        notes=tuple(
            _notes(skipped, sum(map(_loose_images, roots.values())), _unsure(roots["train"]))
        ),
        check_part=check_part,
    )


def check_names_differ(classes: Iterable[str], where: str) -> None:
    """Raise DataError if two class names differ only by case, or by how they write an accent."""
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(unicodedata.normalize("NFC", name.casefold()), name)
        if other != name:
            raise DataError(
                f"{where}: '{other}' and '{name}' differ only by upper and lower case; "
                "merge the two or rename one"
            )


def visible(path: Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds, but for hidden files and folders, sorted by name.

    Raises DataError when the folder cannot be listed.
    """
    try:
        with os.scandir(path) as entries:
            unhidden = [entry for entry in entries if entry.name[0] != "."]
    except OSError as error:
        raise DataError(f"'{path}' cannot be listed: {error.strerror}") from error
    return sorted(unhidden, key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_image(name: str) -> bool:
    """Whether a file is named like an image and not hidden."""
    return name[0] != "." and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - 100,000 Paths take a second


@dataclass
class _Listing:
    """The image files of one part, class after class."""

    names: Names
    counts: list[int]
    """Images of each class."""
    fault: str
    """Why its images cannot be labelled, or nothing."""


@dataclass
class _Skipped:
    """Files that are passed over inside class folders."""

    others: Counter[str] = field(default_factory=Counter)
    """Files that are not named like images, by suffix."""
    links: int = 0
    """Links to folders."""


def _part_roots(path: Path) -> dict[str, Path]:
    folders = [entry.name for entry in visible(path) if is_folder(entry)]
    extra = [name for name in folders if name not in {"train", "test", *VALIDATION_NAMES}]
    if extra and "train" in folders and not any(map(is_folder, visible(path / "train"))):
        # A class beside others, as in CIFAR-100: it holds images and no classes of its own.
        return {"train": path}
    if "train" not in folders:
        parts = [name for name in folders if name.lower() in PART_WORDS]
        if parts and parts == folders:
            raise DataError(
                f"'{path}' holds {' and '.join(f'{name}/' for name in parts)} but no train/; "
                "name the parts train/, val/ and test/"
            )
        return {"train": path}
    roots = {"train": path / "train"}
    for word, part in [*((word, "val") for word in VALIDATION_NAMES), ("test", "test")]:
        if word in folders:
            if part in roots:
                raise DataError(
                    f"'{path}' has {roots[part].name}/ and also {word}/; "
                    "keep one folder of validation images"
                )
            roots[part] = path / word
    if extra:
        raise DataError(
            f"'{path}' has train/ and also {', '.join(f'{name}/' for name in extra[:4])}; "
            "expected only train/, val/ and test/ beside each other"
        )
    return roots


def _class_folders(root: Path) -> dict[str, str]:
    """Return each class's name, its accents written one way (NFC), and the folder's own name."""
    folders: dict[str, str] = {}
    by_predict = (root / SORTED).is_file()
    for entry in visible(root):
        if not is_folder(entry) or (by_predict and entry.name == UNSURE):
            continue
        if entry.is_symlink() and root.resolve().is_relative_to(Path(entry.path).resolve()):
            raise DataError(
                f"class folder '{entry.path}' is a link to a folder that holds it; remove the link"
            )
        name = unicodedata.normalize("NFC", entry.name)
        if name in folders:
            raise DataError(
                f"class folders of '{root}': two are called '{name}' and differ only in how its "
                "accents are encoded (Unicode NFC and NFD); merge the two or rename one"
            )
        folders[name] = entry.name
    return folders


def _no_classes(root: Path) -> str:
    expected = (
        f"expected a folder per class with images in it, as in {root.name}/cat/1.jpg, "
        f"{root.name}/dog/7.jpg"
    )
    loose = _loose_images(root)
    if loose:
        return (
            f"'{root}' holds {counted(loose, 'image')} directly and no class folders; {expected}; "
            "or a CSV file with the columns path,label"
        )
    return f"no data at '{root}': {expected}"


def _loose_images(root: Path) -> int:
    """Return how many images lie beside the class folders."""
    return sum(is_image(entry.name) and not is_folder(entry) for entry in visible(root))


def _list_images(path: Path, root: Path, classes: tuple[str, ...], skipped: _Skipped) -> _Listing:
    """List the image files of each class under `root`, named relative to `path`."""
    folders = _class_folders(root)
    counts = [0] * len(classes)
    fault = ""
    unknown = sorted(set(folders) - set(classes))
    if unknown:
        fault = (
            f"'{root}' has a class that train lacks: '{unknown[0]}'; {suggest(unknown[0], classes)}"
        )

    def names() -> Iterator[str]:
        prefix = "" if root == path else f"{root.name}/"
        for label, name in enumerate(classes):
            if name in folders:
                for image in _walk(root / folders[name], f"{prefix}{folders[name]}/", skipped):
                    counts[label] += 1
                    yield image

    return _Listing(Names(names()), counts, fault)


def _walk(folder: Path, prefix: str, skipped: _Skipped) -> Iterator[str]:
    """Yield the images below a folder: its own first, then those of its folders, each sorted."""
    waiting = [(folder, prefix)]
    while waiting:
        here, prefix = waiting.pop()
        inner = []
        for entry in visible(here):
            if is_folder(entry):
                if entry.is_symlink():
                    skipped.links += 1  # it may lead back here, or to another class
                else:
                    inner.append((here / entry.name, f"{prefix}{entry.name}/"))
            elif is_image(entry.name):
                yield prefix + entry.name
            else:
                skipped.others[Path(entry.name).suffix.lower() or "no suffix"] += 1
        waiting += reversed(inner)


def _images_lie(count: int) -> str:
    return f"{counted(count, 'image')} {'lies' if count == 1 else 'lie'}"


def _unsure(root: Path) -> int:
    """Return how many images `thawnet predict --sort-into` gave no class."""
    folder = root / UNSURE
    return _loose_images(folder) if (root / SORTED).is_file() and folder.is_dir() else 0


def _notes(skipped: _Skipped, loose: int, unsure: int) -> Iterator[str]:
    if skipped.others:
        kinds = ", ".join(suffix for suffix, _ in skipped.others.most_common(4))
        total = skipped.others.total()
        files = "1 file is" if total == 1 else f"{total:,} files are"
        yield f"{files} left out: not named like images ({kinds})"
    if loose:
        yield f"left out: {_images_lie(loose)} beside the class folders, not in one"
    if unsure:
        yield f"left out: {_images_lie(unsure)} in {UNSURE}/; file them by class, or leave them"
    if skipped.links:
        links = counted(skipped.links, "link")
        yield f"not followed: {links} to folders; copy the images in their place"
