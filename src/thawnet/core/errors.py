"""Every error a user can meet, in one tree.

    ThawnetError                 exit 1   a job failed; the message is one sentence for a person
    |-- UsageError               exit 2   the call itself is wrong (flag, recipe, layer, backbone)
    |   `-- RecipeError                   a recipe file or field
    |-- DataError                         the data cannot be trained on
    |   `-- ImageError                    one image cannot be read
    |-- WeightsError                      weights cannot be found, read or fitted to the network
    |-- BundleError                       a bundle cannot be made, opened or trusted
    |-- RunError                          a run folder cannot be written, read, resumed or compared
    |   |-- DivergedError                 loss or gradient became NaN or infinite
    |   |-- DiskFullError                 there is no room left to write
    |   `-- RankLostError                 another process of the same run is gone
    `-- InterruptedRunError      exit 130/143   Ctrl-C or SIGTERM, after the state was saved

A message is one line that says what was received and what to do about it. It is safe to print on a
terminal, whatever names and values it contains.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from .text import SHOWN, sentence


class ThawnetError(Exception):
    """Root of the tree; `exit_code` is the exit status of the command line."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(sentence(message))


class UsageError(ThawnetError):
    """The call is wrong: an unknown flag value, layer, backbone or recipe."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe file is malformed, or a field is unknown, of the wrong type or out of range."""


class DataError(ThawnetError):
    """The data cannot be trained on."""


class ImageError(DataError):
    """One image cannot be read; the message is the reason, without the image's name."""


class WeightsError(ThawnetError):
    """Weights cannot be found, read or fitted to the network."""


class BundleError(ThawnetError):
    """A bundle cannot be made, opened or trusted."""


class RunError(ThawnetError):
    """A run folder cannot be written, read, resumed or compared."""


class DivergedError(RunError):
    """Loss or gradient became NaN or infinite."""


class DiskFullError(RunError):
    """There is no room left on a disk, or in a quota, to write what was computed."""


class RankLostError(RunError):
    """Another process of the same run is gone."""


class InterruptedRunError(ThawnetError):
    """The user or the system stopped the run; the work done so far is saved."""

    exit_code = 130


def suggest(received: str, known: Iterable[str]) -> str:
    """Suggest the names nearest to a misspelt one, or list up to 12 known ones if none is near."""
    names = list(known)
    near = difflib.get_close_matches(received, names, n=3, cutoff=0.5)
    if len(near) == 1:
        return f"did you mean '{near[0]}'?"
    if near:
        return "the nearest are " + ", ".join(f"'{name}'" for name in near)
    listed = names if len(names) <= 12 else [*names[:12], "..."]
    return "known are " + ", ".join(f"'{name}'" for name in listed)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, shortened, or its type if it is empty."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if len(line) <= 2 * SHOWN else f"{line[: 2 * SHOWN]}..."


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all errors in its `__context__` chain."""
    while error is not None:
        yield error
        error = error.__context__


def is_stop(error: BaseException) -> bool:
    """Return whether Ctrl-C or SIGTERM caused an error.

    C++ code that calls Python turns KeyboardInterrupt into a RuntimeError, or into an ImportError
    while it is being imported. Python raises a RuntimeError if it is interrupted while it creates a
    class.
    """
    return any(isinstance(link, KeyboardInterrupt) for link in chain(error))
