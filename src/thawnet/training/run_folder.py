"""The run folder: how it is found, created and locked, and the files written at the start."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core import console
from ..core.errors import RunError, suggest
from ..core.files import (
    NO_LOCKS,
    clear_disk_errors,
    sweep,
    write_atomic,
    write_json,
    write_text,
)
from ..core.text import resume_command
from ..data.store import ImageStore
from ..metrics.result import PLOT, RESULT, Result, read_result
from ..recipe import Recipe, TrainOptions, to_table, to_toml

if TYPE_CHECKING:
    from PIL.Image import Image

STATE = Path("checkpoint") / "state.pt"
HELD_OUT = "held_out.npy"


@dataclass(frozen=True, repr=False)
class Outcome:
    """A finished run: its folder and its result."""

    folder: Path
    result: Result
    unlabelled: tuple[str, ...] = ()
    """Folders of the data whose images have no class yet; see Source."""

    def __repr__(self) -> str:
        return f"<thawnet run {self.folder}\n  {self.line}>"

    @property
    def lines(self) -> tuple[str, ...]:
        """The result as lines of text, the accuracy last."""
        return self.result.lines

    @property
    def line(self) -> str:
        """The line that quotes the accuracy."""
        return self.lines[-1]

    def plot(self) -> Image:
        """Return history.png, accuracy and loss of both phases, which notebooks show inline.

        Raises RunError if the file is missing or damaged.
        """
        import PIL.Image

        try:
            with PIL.Image.open(self.folder / PLOT) as image:
                image.load()
                return image
        except OSError as error:  # Pillow's own errors are some too
            raise RunError(f"'{self.folder / PLOT}' cannot be read ({error})") from error


def write_held_out(folder: Path, logits: NDArray[np.float32]) -> None:
    """Save the logits that the networks of the folds give to their held-out images."""
    write_atomic(folder / HELD_OUT, lambda file: np.save(file, logits, allow_pickle=False))


def read_held_out(folder: Path) -> NDArray[np.float32]:
    """Return the held-out logits, (n, classes). Raises RunError if missing or damaged."""
    try:
        logits: NDArray[np.float32] = np.load(folder / HELD_OUT, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"'{folder / HELD_OUT}' cannot be read ({error}); train again") from error
    return logits


def require_free(chosen: Path | None) -> None:
    """Raise RunError when the chosen run folder already holds something."""
    if chosen is not None and chosen.is_dir() and any(chosen.iterdir()):
        raise RunError(
            f"--out '{chosen}': the folder already holds a run or other files; "
            f"choose a new one, or continue that run: {resume_command(chosen)}"
        )


def new_run_folder(chosen: Path | None, data: str, recipe: str) -> Path:
    """Create the run folder: the one chosen, or the next free runs/<data>-<recipe>-<n>.

    Raises RunError when the chosen folder is not empty or cannot be created.
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


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Lock a run folder for this process, and remove what a killed writer left in it.

    On a mount without locks the folder stays unlocked, with a message. Raises RunError if another
    process holds the lock, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = (run / STATE).parent
    with clear_disk_errors(run):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"'{run}': another process is working on this run; wait for it, or stop it"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            console.say(f"{run}: this disk knows no locks; let no other process resume this run")
    try:
        sweep(run)
        sweep(folder)
        yield
    finally:
        lock.release()


def remove_run_folder(folder: Path, chosen: Path | None) -> None:
    """Remove the folder of a run that could not begin, and `runs` if that is then empty."""
    shutil.rmtree(folder, ignore_errors=True)
    if chosen is None:
        with suppress(OSError):  # it has other runs
            folder.parent.rmdir()


def resumed_folder(options: TrainOptions) -> Path:
    """Return the run that --resume names: a folder, or the newest unfinished one."""
    return Path(options.resume) if options.resume else _newest_unfinished(Path("runs"))


def _newest_unfinished(runs: Path) -> Path:
    """Return the newest run under a folder that has a checkpoint and no result."""
    for run in reversed(_begun(runs)):
        if not (run / RESULT).exists():
            return run
    raise RunError(f"--resume: no unfinished run under '{runs}/'; name one with --resume RUN")


def _begun(runs: Path) -> list[Path]:
    """Return the runs under a folder that have a checkpoint, the most recently saved last."""
    files = sorted(runs.glob(f"*/{STATE.as_posix()}"), key=lambda file: file.stat().st_mtime)
    return [file.parent.parent for file in files]


def no_run(folder: Path) -> str:
    """Return the message that a folder holds no resumable run, with a suggestion."""
    if folder.is_dir():
        what = f"no run can be resumed from this folder: it has no {STATE}"
    else:
        what = "no such folder"
    beside = [str(run) for run in _begun(folder.parent)]
    way = suggest(str(folder), beside) if beside else "name a run folder, as in runs/digits-full-1"
    return f"--resume '{folder}': {what}; {way}"


def finished(folder: Path) -> Outcome | None:
    """Return the outcome of a finished run, or None if it is not finished."""
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
    """Write broken.json, the unreadable images of all stores; remove it if there are none."""
    broken = sorted({entry for store in stores for entry in store.broken})
    path = folder / "broken.json"
    if broken:
        write_json(path, [{"image": name, "reason": why} for name, why in broken])
    else:
        path.unlink(missing_ok=True)  # they were repaired
