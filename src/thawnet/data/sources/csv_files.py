"""The image files that a table means, even if its names differ from their paths."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...core.errors import DataError
from ...core.text import counted
from ..items import spread_over
from ..names import Names
from .visible import Skipped, is_folder, is_image, visible, walk

MOST_NAMES = 200_000  # in a table; beyond, its folders are not searched for images without a row
SAMPLE = 500  # names that are sampled to see how a table names its files
LIKELY = ("images", "image", "img", "photos", "pictures", "train")  # usual folders beside a table


@dataclass(frozen=True)
class _Way:
    """A mapping from a table's names to files: drop the first folders and prepend others."""

    drop: int
    folder: tuple[str, ...]

    @property
    def cost(self) -> tuple[int, int]:
        """How much it changes a name: folders prepended, then folders dropped."""
        return len(self.folder), self.drop


class ImageFiles:
    """Image files below a folder, found by names with other case or folders, or no extension."""

    def __init__(self, folder: Path, likely: str) -> None:
        """Search below `folder`; if several of its folders fit, `likely` is preferred."""
        self.folder = folder
        self._likely = (likely.casefold(), *LIKELY)

    def share(self, names: Sequence[str]) -> float:
        """Return the share of names for which files are found, 0 to 1."""
        if not names:
            return 0.0
        if all(map(self._exists, names)):
            return 1.0
        way = self._way(names)
        if way is None:
            return 0.0
        return sum(self._resolve(name, way) is not None for name in names) / len(names)

    def find(self, names: Names, table: Path) -> tuple[Names, tuple[str, ...]]:
        """Return the names of the files, relative to the folder, and a note if any name changed.

        A name whose file is not found stays as it is. Raises DataError if several files or folders
        fit.
        """
        if all(map(self._exists, names)):
            return names, ()
        way = self._way([names[row] for row in spread_over(len(names), SAMPLE)])
        if way is None:
            return names, ()
        example = ""

        def found() -> Iterator[str]:
            nonlocal example
            for name in names:
                file = self._resolve(name, way)
                if file and file != name and not example:
                    example = (
                        f"'{table.name}' names '{name}', which is found as '{file}', and so on"
                    )
                yield file or name

        resolved = Names(found())
        return resolved, (example,) if example else ()

    def without_row(self, names: Names) -> Iterator[str]:
        """Yield a note that counts the images beside the table's that have no row, if any."""
        if len(names) > MOST_NAMES:
            return
        folders = defaultdict[str, set[str]](set)
        for name in names:
            folder, file = os.path.split(os.path.normpath(os.path.join(self.folder, name)))  # noqa: PTH118 - as below
            folders[folder].add(file)
        lone: list[str] = []
        for folder, known in folders.items():
            with suppress(DataError):  # there is no such folder
                images = (entry.name for entry in visible(Path(folder)) if not is_folder(entry))
                lone += [image for image in images if is_image(image) and image not in known]
        if lone:
            yield f"left out: {counted(len(lone), 'image')} without a row, such as '{lone[0]}'"

    def untold(self, names: Names) -> tuple[str, ...]:
        """Return folders of test images that no row names, such as a competition's test/."""
        told = {_words(name)[0] for name in names}
        return tuple(
            entry.path
            for entry in visible(self.folder)
            if is_folder(entry)
            and entry.name.lower().startswith("test")
            and entry.name not in told
            and any(is_image(image.name) for image in visible(Path(entry.path)))
        )

    def _exists(self, name: str) -> bool:
        # pathlib raises at names that no file can have.
        return os.path.isfile(os.path.join(self.folder, name))  # noqa: PTH113, PTH118 - as above

    def _way(self, names: Sequence[str]) -> _Way | None:
        """Return the mapping that turns most of the names into files, None if none does."""
        votes = Counter[_Way]()
        for name in names:
            votes.update(set(self._ways(_words(name))))
        if not votes:
            return None
        most = max(votes.values())
        nearest = min(way.cost for way, count in votes.items() if count == most)
        best = sorted(
            (way for way, count in votes.items() if count == most and way.cost == nearest),
            key=lambda way: way.folder,
        )
        if len(best) > 1:
            best = [way for way in best if way.folder[-1].casefold() in self._likely] or best
        if len(best) > 1:
            places = " and ".join(repr("/".join(way.folder)) for way in best[:4])
            raise DataError(
                f"'{names[0]}' and others lie in {places} below '{self.folder}'; say which are "
                "meant with --images FOLDER"
            )
        return best[0]

    def _ways(self, words: list[str]) -> Iterator[_Way]:
        for file in self._by_name.get(_bare(words[-1]), ()):
            parts = file.split("/")
            if not _means(words[-1], parts[-1]):
                continue
            tail = 1
            while tail < min(len(parts), len(words)) and _alike(parts[-tail - 1], words[-tail - 1]):
                tail += 1
            yield _Way(len(words) - tail, tuple(parts[:-tail]))

    def _resolve(self, name: str, way: _Way) -> str | None:
        """Return the file that a name means, None if none fits. Raises DataError if several fit."""
        words = _words(name)[way.drop :]
        if not words:
            return None
        wanted = "/".join((*way.folder, *words))
        fitting = [file for file in self._by_path.get(_bare(wanted), ()) if _means(wanted, file)]
        exact = [file for file in fitting if file == wanted]
        if len(fitting) > 1 and not exact:
            raise DataError(
                f"'{name}' may be '{fitting[0]}' or '{fitting[1]}' in '{self.folder}'; name the "
                "file whole"
            )
        return next(iter(exact or fitting), None)

    @cached_property
    def _by_path(self) -> dict[str, list[str]]:
        """Files below the folder, relative to it, keyed by lower-case path without extension."""
        files = defaultdict[str, list[str]](list)
        for file in walk(self.folder, "", Skipped()):
            files[_bare(file)].append(file)
        return files

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """The same files, keyed by their own names without folders."""
        files = defaultdict[str, list[str]](list)
        for bare, alike in self._by_path.items():
            files[bare.rpartition("/")[2]] += alike
        return files


def _words(name: str) -> list[str]:
    """Split a name into folders and file, at slashes or the backslashes of Windows."""
    words = name.replace("\\", "/").split("/")
    return [word for word in words if word not in ("", ".")] or [""]


def _bare(name: str) -> str:
    """Return a name in lower case, without an image extension."""
    return (name.rpartition(".")[0] if is_image(name) else name).casefold()


def _means(name: str, file: str) -> bool:
    """Return whether a table's name matches a file's, with or without its extension."""
    return _alike(name, file) or _bare(file) == name.casefold()


def _alike(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()
