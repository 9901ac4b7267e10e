"""The layout of a data folder: its root, its parts and its class folders."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...core.errors import DataError
from ..items import PART_OF, VALIDATION_NAMES
from .visible import Skipped, dead_link, is_folder, is_image, visible

SORTED = "sorted.csv"  # lists where `thawnet predict --sort-into` put each image
COLLECTED = "collected.csv"  # lists which classes visitors of `thawnet serve --collect` named
OWN_LISTS = frozenset({SORTED, COLLECTED})
UNSURE = "unsure"  # the folder beside either of images that got no class
DATA_FILES = (".csv", ".parquet")  # that label the images beside them, or hold images
PART_NAMES = {"train", "test", *VALIDATION_NAMES}
# A folder of such a name beside train/ or test/ is a part and not a class, like Kaggle's test1/.
_PART_LIKE = re.compile(
    rf"({'|'.join(sorted(PART_OF, key=len, reverse=True))}|unlabell?ed)"
    r"([ _-]?(set|data|images|\d+))?",
    re.IGNORECASE,
)


def data_root(path: Path) -> Path:
    """Return the folder that holds the data, entering folders that stand alone.

    A part is not entered, nor is a class: a folder with at least as many images as folders
    and without a table.
    """
    while True:
        inside = visible(path)
        folders = [entry for entry in inside if is_folder(entry)]
        if len(folders) != 1 or any(map(_is_data, inside)) or _leads_back(folders[0], path):
            return path
        deeper = visible(path / folders[0].name)
        images = sum(is_image(entry.name) and not is_folder(entry) for entry in deeper)
        is_class = images >= sum(map(is_folder, deeper))
        if folders[0].name.lower() in PART_OF or (is_class and not any(map(_is_table, deeper))):
            return path
        path = path / folders[0].name


def part_roots(path: Path, skipped: Skipped, by_class: bool = True) -> dict[str, Path]:
    """Return the folder of each part: train, and val and test if they are there.

    A folder beside train/ that is named like a part but holds no folders, such as Kaggle's test1/,
    is returned under its own name; parts.files_source leaves it out as unlabelled, or refuses it.
    by_class: whether a part is made of class folders; a train/ without any may then be a class.
    Raises DataError for folders that are neither parts nor classes.
    """
    entries = visible(path)
    _require_targets(entries)
    folders = [entry.name for entry in entries if is_folder(entry)]
    listed = " and ".join(f"{name}/" for name in folders)
    flat = {
        name
        for name in set(folders) - PART_NAMES
        if "train" in folders
        and _PART_LIKE.fullmatch(name)
        and not any(map(is_folder, visible(path / name)))
    }
    if (
        folders
        and all(map(_PART_LIKE.fullmatch, folders))
        and (len(folders) > 1 or folders[0].lower() in PART_OF)
        and ("train" not in folders or set(folders) - PART_NAMES - flat)
    ):
        lacking = alone = ""
        if "train" not in folders:
            lacking = " but no train/"
            alone = f"; to evaluate on one alone, give '{path / folders[0]}'"
        raise DataError(
            f"'{path}' holds {listed}{lacking}; name the parts train/, val/ and test/, "
            f"and move other folders elsewhere{alone}"
        )
    extra = [name for name in folders if name not in PART_NAMES | flat]
    if "train" not in folders:
        return {"train": path}
    if by_class and extra and not any(map(is_folder, visible(path / "train"))):
        # train/ is a class, as in CIFAR-100: it holds images and no class folders.
        return {"train": path}
    roots = {"train": path / "train", **{name: path / name for name in sorted(flat)}}
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
    visible(path, skipped)  # only here: if `path` is itself the part, a later call counts
    return roots


class ClassFolders(NamedTuple):
    """The class folders of a part."""

    names: dict[str, str]
    """From each class's name, normalised to NFC, to its folder's own name."""
    loose: int
    """Number of images beside them."""
    unsure: int
    """Number of images that `thawnet predict --sort-into` gave no class."""
    sorted: bool
    """Whether `thawnet predict --sort-into` filed the images."""


def class_folders(root: Path, skipped: Skipped) -> ClassFolders:
    """Return the class folders below a part's folder.

    Raises DataError for a link that is dead or leads back, and for two names that differ only in
    how their accents are encoded.
    """
    folders: dict[str, str] = {}
    entries = visible(root, skipped)
    _require_targets(entries)
    lists = OWN_LISTS.intersection(entry.name for entry in entries)
    loose = unsure = 0
    for entry in entries:
        if not is_folder(entry):
            loose += is_image(entry.name)
            continue
        if lists and entry.name == UNSURE:
            unsure = sum(is_image(image.name) for image in visible(root / UNSURE))
            continue
        if _leads_back(entry, root):
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
    return ClassFolders(folders, loose, unsure, SORTED in lists)


def require_classes(root: Path, folders: Iterable[str]) -> None:
    """Raise DataError if the folders in `root` are data sets, or each hold parts of their own."""
    names = list(folders)
    parted = [name for name in names if os.path.isdir(f"{root}/{name}/train")]  # noqa: PTH112 - a Path for each of 10,000 classes takes a while
    sets = [name for name in parted if any(map(is_folder, visible(root / name / "train")))]
    if sets:
        shown = ", ".join(f"'{root / name}'" for name in sets[:4]) + ", ..." * (len(sets) > 4)
        raise DataError(
            f"'{root}' holds data sets and no classes: {shown} "
            f"{'has its' if len(sets) == 1 else 'have their'} own train/; give one of them"
        )
    if parted and len(parted) == len(names):
        raise DataError(
            f"the class folders of '{root}' hold parts, as in '{parted[0]}/train/'; put "
            f"the part first: move them to train/{parted[0]}/, and the other parts likewise"
        )


def _require_targets(entries: Iterable[os.DirEntry[str]]) -> None:
    """Raise DataError for a dead link that may have led to a folder."""
    for entry in entries:
        if entry.is_symlink() and not is_image(entry.name) and (fault := dead_link(entry.path)):
            raise DataError(fault)


def _leads_back(entry: os.DirEntry[str], root: Path) -> bool:
    return entry.is_symlink() and root.resolve().is_relative_to(Path(entry.path).resolve())


def _is_table(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(DATA_FILES)


def _is_data(entry: os.DirEntry[str]) -> bool:
    return not is_folder(entry) and (is_image(entry.name) or _is_table(entry))
