"""Photos whose class visitors named, kept as a data set that `thawnet train` takes."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from pathlib import Path

from ..core.files import clear_disk_errors, write_atomic
from ..core.text import counted, csv_row
from ..data.sources.layout import COLLECTED, UNSURE
from ..image.decode import SUFFIXES
from .refusals import Refused

COLUMNS = ("image", "class", "predicted")
SHOWN = 20  # classes that a refusal names
DIGITS = 32  # hexadecimal, of a photo's SHA-256, that name it


class Collection:
    """A folder of class folders. A photo that is named again moves to its new class.

    collected.csv lists each photo, the class that was named and the network's own, as they came.
    Whoever owns the folder may move and delete photos meanwhile.
    """

    def __init__(self, folder: Path, classes: tuple[str, ...], most: int) -> None:
        """most: bytes that the folder may hold, with what is in it already.

        Makes the folder. Raises RunError if it cannot be written to.
        """
        self.folder = folder
        self.labels = (*classes, UNSURE)
        self.most = most
        self._turn = threading.Lock()
        with clear_disk_errors(folder):  # before the first visitor finds out
            folder.mkdir(parents=True, exist_ok=True)
            files = [file for file in folder.rglob("*") if file.is_file()]
            self._kept = {file.stem: file for file in files if file.parent.parent == folder}
            self._held = sum(file.stat().st_size for file in files)
        if not (folder / COLLECTED).exists():
            self._note(csv_row(*COLUMNS))

    def keep(self, photo: bytes, label: str, suffix: str, predicted: str = "") -> Path:
        """Keep a photo under its class, or UNSURE; return where, relative to the folder.

        predicted: the class that the network gave it. suffix: of the photo's own file name, used if
        it is one of an image.
        Raises Refused for an unknown class or a full folder, RunError on a disk error.
        """
        if label not in self.labels:
            classes = self.labels[:-1]
            listed = ", ".join(classes[:SHOWN]) + ", ..." * (len(classes) > SHOWN)
            raise Refused(
                422,
                f"'{label[:100]}' is none of the {counted(len(classes), 'class')} ({listed}), "
                f"nor '{UNSURE}'",
            )
        name = hashlib.sha256(photo).hexdigest()[:DIGITS]
        with self._turn:
            before = self._place(name)
            if before is None and name in self._kept:  # somebody has deleted it
                del self._kept[name]
                self._held -= len(photo)
            own = name + (suffix if suffix in SUFFIXES else ".jpg")
            target = self.folder / label / (before.name if before else own)
            row = csv_row(target.name, label, predicted)
            if self._held + len(row) + 1 + (0 if before else len(photo)) > self.most:
                raise Refused(
                    507, f"{self.most / 2**20:,.0f} MiB of photos are kept already, the most here"
                )
            if before != target:
                self._note(row)
                with clear_disk_errors(target):
                    if before is None:
                        write_atomic(target, lambda file: file.write(photo))
                        self._held += len(photo)
                    else:
                        target.parent.mkdir(exist_ok=True)
                        before.rename(target)
                        with suppress(OSError):  # an empty class could not be trained on
                            before.parent.rmdir()
                self._kept[name] = target
        return target.relative_to(self.folder)

    def _place(self, name: str) -> Path | None:
        """Return where a photo is kept, None if it is not, or no more."""
        place = self._kept.get(name)
        if place is not None and not place.exists():
            place = next(self.folder.glob(f"*/{name}.*"), None)
        return place

    def _note(self, row: str) -> None:
        listing = self.folder / COLLECTED
        with clear_disk_errors(listing), listing.open("a", encoding="utf-8") as file:
            self._held += file.write(f"{row}\n")
