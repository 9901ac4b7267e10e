"""Sorting of photos into class folders: nothing is overwritten, and nothing is lost."""

from __future__ import annotations

import filecmp
import itertools
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .core.errors import ImageError, UsageError
from .core.files import MAX_NAME, clear_disk_errors, sync_file, write_atomic
from .core.text import csv_row, escaped, shown, unreadable
from .data.sources.layout import SORTED, UNSURE
from .data.sources.leftovers import is_leftover, is_passed_over

if TYPE_CHECKING:
    from .bundle.model import Prediction

COLUMNS = ("image", "file", "class", "probability", "unfamiliar", "error")  # of sorted.csv

THERE = "there already"  # counts photos that an earlier call sorted, wherever they are now

How = Literal["copy", "move", "link"]


class Sorting:
    """Sort each photo as it is predicted, and record in sorted.csv what went where."""

    def __init__(
        self, out: Path, classes: tuple[str, ...], least: float, how: How, dry: bool
    ) -> None:
        """least: lowest probability, 0 to 1, at which a photo is put into its best class.

        Raises UsageError for a class whose name cannot be a folder's.
        """
        check_folder_names(classes)
        self._sorter = Sorter(out, how, dry)
        self._least = least
        self._counts: Counter[str] = Counter()
        self._rows: list[str] = []

    def __call__(self, name: str, prediction: Prediction | ImageError) -> str:
        """Put a photo into its folder; return a line that says where."""
        if isinstance(prediction, ImageError):
            self._rows.append(csv_row(name, "", "", "", "", str(prediction)))
            return unreadable(name, prediction)
        label, probability = prediction.classes[0], prediction.probabilities[0]
        sure = probability >= self._least and not prediction.unfamiliar
        there = self._sorter.before(Path(name))
        if there is not None:
            self._counts[THERE] += 1
            return f"{escaped(name)} is {escaped(str(there))} already"
        target = self._sorter.put(Path(name), label if sure else UNSURE)
        self._counts[label if sure else UNSURE] += 1
        file = str(target.relative_to(self._sorter.out))
        self._rows.append(csv_row(name, file, label, f"{probability:.6g}", prediction.mark, ""))
        strange = ", unlike the training data" if prediction.unfamiliar else ""
        return (
            f"{escaped(name)} -> {escaped(str(target))}  "
            f"({escaped(label)} {100 * probability:.2f} %{strange})"
        )

    @contextmanager
    def listed(self) -> Iterator[None]:
        """Extend sorted.csv when the block ends, also after an error or a stop."""
        try:
            yield
        finally:
            path = self._sorter.out / SORTED
            if self._rows and not self._sorter.dry:
                before = path.read_bytes() if path.is_file() else f"{csv_row(*COLUMNS)}\n".encode()
                rows = "".join(f"{row}\n" for row in self._rows)
                write_atomic(path, lambda file: file.write(before + rows.encode()))

    @property
    def summary(self) -> str:
        """A line that says how many photos went where."""
        last = (UNSURE, THERE)
        counts = sorted(self._counts.items(), key=lambda item: (item[0] in last, item[0]))
        listed = ", ".join(f"{escaped(folder)} {count:,}" for folder, count in counts)
        verb = "would be sorted" if self._sorter.dry else "sorted"
        return f"{verb} into {self._sorter.out}: {listed or 'nothing'}"


@dataclass
class Sorter:
    """Put photos into the class folders of `out`, a data set that `thawnet train` takes."""

    out: Path
    how: How
    dry: bool = False
    """Only say where photos would go."""
    _taken: dict[Path, Path] = field(default_factory=dict)
    """The photo that went, or would go, to each path."""

    @cached_property
    def _old(self) -> dict[int, list[Path]]:
        """The files that were in the folders of `out` before, by size."""
        files: dict[int, list[Path]] = {}
        for file in sorted(self.out.glob("*/*")):
            if is_leftover(file.parent.name) or is_leftover(file.name):
                continue  # the files in a recycle bin do not count
            with suppress(OSError):  # a broken link
                files.setdefault(file.stat().st_size, []).append(file)
        return files

    def before(self, photo: Path) -> Path | None:
        """Return where this photo already is in `out`, or None if it is new.

        An earlier call put it there, or the user moved it since. If photos are moved, the given
        copy is removed. Raises RunError on a disk error.
        """
        with clear_disk_errors(photo):
            candidates = self._old.get(photo.stat().st_size, [])
        there = next((file for file in candidates if _same(photo, file)), None)
        if there is not None and self.how == "move" and not self.dry:
            self._remove(photo, there)
        return there

    def put(self, photo: Path, folder: str) -> Path:
        """Put a photo into a folder of `out`, and return its path there.

        A different photo of the same name is left alone: this one gets a number, as in rose-2.jpg.
        If one with the same content is there already, nothing is added; if photos are moved, the
        given copy is removed. Raises RunError on a disk error.
        """
        for number in itertools.count(1):
            suffix = f"-{number}" if number > 1 else ""
            target = self.out / folder / f"{photo.stem}{suffix}{photo.suffix}"
            if self.dry:
                other = self._taken.get(target, target)
                there = not os.path.lexists(other) or _same(photo, other)
            else:
                with clear_disk_errors(target):
                    there = self._place(photo, target) or _same(photo, target)
            if there:
                break
        self._taken.setdefault(target, photo)
        if not self.dry and self.how == "move":
            self._remove(photo, target)
        return target

    def _remove(self, photo: Path, target: Path) -> None:
        """Remove a photo that is also at the target."""
        if photo.resolve() != target.resolve():
            with clear_disk_errors(photo):
                photo.unlink()

    def _place(self, photo: Path, target: Path) -> bool:
        """Create the target unless it exists; return whether it was created."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.how == "link":
            try:
                target.symlink_to(photo.resolve())
            except FileExistsError:
                return False
            return True
        if self.how == "move":
            try:
                os.link(photo, target, follow_symlinks=False)  # never overwrites
            except FileExistsError:
                return False
            except OSError:  # another disk, or one without links
                pass
            else:
                return True
        try:
            with photo.open("rb") as source, target.open("xb") as copy:
                try:
                    shutil.copyfileobj(source, copy)
                    sync_file(copy)
                except BaseException:
                    target.unlink()
                    raise
        except FileExistsError:
            return False
        with suppress(OSError):  # some mounts store no times
            shutil.copystat(photo, target)
        return True


def _same(photo: Path, target: Path) -> bool:
    try:
        return filecmp.cmp(photo, target, shallow=False)
    except OSError:
        return False


# Names that Windows reserves for devices, with any ending.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def check_folder_names(classes: tuple[str, ...], flag: str = "--sort-into") -> None:
    """Raise UsageError, naming the flag, for a class that no folder can be named after.

    That is a name that file systems or thawnet itself refuse, `unsure`, and, where upper and lower
    case are the same to the file system, one that differs from another in case alone.
    """
    if sys.platform in ("win32", "darwin"):
        folded = [name.casefold() for name in (*classes, UNSURE)]
        twice = next((name for name in classes if folded.count(name.casefold()) > 1), None)
        if twice is not None:
            raise UsageError(
                f"{flag}: the class {shown(twice)} differs from another folder in upper and lower "
                "case alone, which are the same here; rename it in the data and train again"
            )
    for name in classes:
        if (
            not name.strip()
            or name.strip() != name
            or is_passed_over(name)
            or name.endswith(".")
            or _DEVICE.fullmatch(name)
            or any(letter in '/\\:*?"<>|' or not letter.isprintable() for letter in name)
            or len(os.fsencode(name)) > MAX_NAME
        ):
            raise UsageError(
                f"{flag}: the class {shown(name)} cannot be the name of a folder; "
                "give it another by --class-names and train again"
            )
        if name == UNSURE:
            raise UsageError(
                f"{flag}: the network has a class '{UNSURE}', which is the folder of photos "
                "that no class is given; rename it in the data and train again"
            )
