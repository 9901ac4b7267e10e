"""The run folder: made, and what is written into it when a run starts."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import RunError
from ..core.files import clear_disk_errors, write_json, write_text
from ..core.text import command_line
from ..data.store import ImageStore
from ..metrics.result import Result, read_result
from ..recipe import Recipe, to_table, to_toml


@dataclass(frozen=True)
class Outcome:
    """What came out of a run: its folder, and what its result.json holds."""

    folder: Path
    result: Result

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines for a person, the accuracy last."""
        return self.result.lines

    @property
    def line(self) -> str:
        """The accuracy as it is quoted."""
        return self.lines[-1]


def require_free(chosen: Path | None) -> None:
    """Raise RunError when the chosen run folder already holds something."""
    if chosen is not None and chosen.is_dir() and any(chosen.iterdir()):
        raise RunError(
            f"--out '{chosen}': the folder already holds a run or other files; "
            f"choose a new one, or go on with that run: {command_line('--resume', chosen)}"
        )


def new_run_folder(chosen: Path | None, data: str, recipe: str) -> Path:
    """Make the run folder: the one chosen, or the next free runs/<data>-<recipe>-<n>.

    Raises RunError when the chosen folder is not empty or cannot be made.
    """
    require_free(chosen)
    if chosen is not None:
        with clear_disk_errors(chosen):
            chosen.mkdir(parents=True, exist_ok=True)
        return chosen
    number = 1
    while True:
        folder = Path("runs") / f"{data}-{recipe}-{number}"
        with clear_disk_errors(folder):
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                number += 1


def remove_run_folder(folder: Path, chosen: Path | None) -> None:
    """Remove the folder of a run that could not begin, and the `runs` it alone was in."""
    shutil.rmtree(folder, ignore_errors=True)
    if chosen is None:
        with contextlib.suppress(OSError):  # others are in it
            folder.parent.rmdir()


def finished(folder: Path) -> Outcome | None:
    """Return what came out of a run that is finished already, None if it is not."""
    try:
        return Outcome(folder, read_result(folder))
    except FileNotFoundError:
        return None


def write_start(folder: Path, recipe: Recipe, train: ImageStore, val: ImageStore) -> None:
    """Write the resolved recipe, and the list of broken images if there are any."""
    heading = "# The complete recipe of this run: thawnet train DATA --recipe this-file\n"
    write_text(folder / "recipe.toml", heading + to_toml(to_table(recipe)))
    write_broken(folder, [train, val])


def write_broken(folder: Path, stores: Iterable[ImageStore]) -> None:
    """Write broken.json, what could not be read in any of the stores, if there is anything."""
    broken = sorted({entry for store in stores for entry in store.broken})
    path = folder / "broken.json"
    if broken:
        write_json(path, [{"image": name, "reason": why} for name, why in broken])
    else:
        path.unlink(missing_ok=True)  # they were mended
