"""Listing folders: images and folders, without hidden files and leftovers of other programs."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...core.errors import DataError
from ...core.text import counted
from ...image.decode import SUFFIXES
from .leftovers import is_leftover, is_passed_over


@dataclass
class Skipped:
    """Counts of what is skipped while folders are listed, except hidden files."""

    others: Counter[str] = field(default_factory=Counter)
    """Files in class folders that are not named like images, by suffix."""
    links: int = 0
    """Links to folders in class folders."""
    leftovers: Counter[str] = field(default_factory=Counter)
    """Files of other programs, by the name of the leftover file or folder."""

    def notes(self) -> Iterator[str]:
        """Yield a note for each kind that was skipped."""
        if self.others:
            total = self.others.total()
            files = "1 file is" if total == 1 else f"{total:,} files are"
            yield f"{files} left out: not named like images ({_first(self.others)})"
        if self.leftovers.total():
            files = counted(self.leftovers.total(), "file")
            yield f"left out: {files} that other programs left ({_first(self.leftovers)})"
        if self.links:
            links = counted(self.links, "link")
            yield f"not followed: {links} to folders; copy the images in their place"


def visible(path: Path, skipped: Skipped | None = None) -> list[os.DirEntry[str]]:
    """Return a folder's entries without hidden files and leftovers, sorted by name.

    skipped: counts the leftovers. Raises DataError if the folder cannot be listed.
    """
    try:
        with os.scandir(path) as entries:
            unhidden = [entry for entry in entries if entry.name[0] != "."]
    except OSError as error:
        raise DataError(f"'{path}' cannot be listed: {error.strerror}") from error
    seen = [entry for entry in unhidden if not is_leftover(entry.name)]
    if skipped is not None and len(seen) < len(unhidden):
        for entry in unhidden:
            if is_leftover(entry.name):
                skipped.leftovers[entry.name] += _files_in(entry)
    return sorted(seen, key=lambda entry: entry.name)


def walk(folder: Path, prefix: str, skipped: Skipped) -> Iterator[str]:
    """Yield the images below a folder: its own first, then those of its folders, each sorted.

    prefix: put before each name, such as `cat/`. Links to folders are not followed.
    """
    waiting = [(folder, prefix)]
    while waiting:
        here, prefix = waiting.pop()
        inner = []
        for entry in visible(here, skipped):
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


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; False for a circular link."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_image(name: str) -> bool:
    """Return whether a file is named like an image, and is neither hidden nor a leftover."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not is_passed_over(name)  # noqa: PTH122 - 100,000 Paths take a second


def dead_link(path: str | Path) -> str | None:
    """Return why a link is dead and what to do; None for a live link or anything else."""
    if not os.path.islink(path):  # noqa: PTH114 - False, where Path raises for odd names
        return None
    try:
        os.stat(path)  # noqa: PTH116 - as above
    except OSError as error:
        if error.errno == errno.ELOOP:
            return f"'{path}' is a link that leads back to itself; remove it"
        why = "is not there" if error.errno == errno.ENOENT else f"fails ({error.strerror})"
        return (
            f"'{path}' is a link to '{os.readlink(path)}', which {why}; "  # noqa: PTH115 - as above
            "mount it, or remove the link"
        )
    return None


def _files_in(entry: os.DirEntry[str]) -> int:
    """Return how many files are in a folder, at any depth; 1 for a file."""
    if not is_folder(entry) or entry.is_symlink():
        return 1
    return sum(len(files) for _, _, files in os.walk(entry.path))


def _first(kinds: Counter[str]) -> str:
    """Return the most frequent kinds, equals in alphabetical order."""
    names = sorted(kinds, key=lambda kind: (-kinds[kind], kind))
    return ", ".join(names if len(names) < 5 else [*names[:4], "..."])
