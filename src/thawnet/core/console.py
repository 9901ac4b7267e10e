"""Lines and progress bars on stderr, results on stdout."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, Literal, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from .errors import RunError
from .text import duration, printable

LINE_SECONDS = 1.0  # between two states of a line in a notebook


class _Stderr:
    """Stderr as it is at each moment. A line that nobody can read is no reason to stop."""

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # a terminal or a reader that went away
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


_console = Console(file=cast("IO[str]", _Stderr()), highlight=False, soft_wrap=True, emoji=False)
_rank = 0
_muted = ContextVar("muted", default=False)  # of each thread


def prepare() -> None:
    """Make stdout and stderr take any text: what their encoding lacks is escaped.

    A stream that is closed, as of a service or pythonw, becomes one that nobody reads.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - to the end
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def follow(rank: int) -> None:
    """Set this process's rank: of several that do one job, only 0 prints; all tell failures."""
    global _rank
    _rank = rank


@contextmanager
def muted() -> Iterator[None]:
    """Say nothing and show no bar in this thread until the block is done."""
    before = _muted.set(True)
    try:
        yield
    finally:
        _muted.reset(before)


_BYTES = (DownloadColumn(), TransferSpeedColumn())


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


def say(text: str) -> None:
    """Print one line on stderr, without markup or terminal codes."""
    if not (_rank or _muted.get()):
        _console.print(printable(text), markup=False)


def fail(text: str) -> None:
    """Print why the command ends on stderr, from any rank."""
    who = f"thawnet, rank {_rank}" if _rank else "thawnet"
    _console.print(f"{who}: {printable(text)}", markup=False)


def result(text: str) -> None:
    """Print lines on stdout; terminal codes in them reach a pipe, but no terminal."""
    if not _rank:
        if sys.stdout.isatty():
            text = "\n".join(map(printable, text.split("\n")))
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            drop_stdout()
            raise RunError(
                f"results cannot be written to stdout: {error.strerror}; what was written before "
                "stays"
            ) from error


@contextmanager
def without_stdout() -> Iterator[None]:
    """Let go of what native code prints on stdout meanwhile, as torch does with a whole graph."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    try:
        own = os.dup(1)
    except OSError:  # there is none
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    try:
        yield
    finally:
        os.dup2(own, 1)
        os.close(own)


def drop_stdout() -> None:
    """Discard what Python still buffers for stdout: it would fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def progress(
    title: str, total: int | None, unit: Literal["images", "bytes"] = "images"
) -> Iterator[Callable[[int], None]]:
    """Show a bar with speed and time left on a terminal; yield the function that advances it.

    total: None if it is not known. A notebook gets a line that is written over; a log file, where a
    bar is noise, nothing.
    """
    hidden = bool(_rank) or _muted.get()
    if _in_notebook() and not hidden:
        with _line(printable(title), total) as advance:
            yield advance
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *((MofNCompleteColumn(), _Rate()) if unit == "images" else _BYTES),
        TimeRemainingColumn(),
    )
    bars = Progress(
        *columns,
        console=_console,
        transient=True,
        disable=hidden or not _console.is_terminal or _console.is_dumb_terminal,
        redirect_stdout=False,  # or results printed meanwhile would go to stderr
    )
    with bars:
        task = bars.add_task(printable(title), total=total)
        yield lambda done: bars.advance(task, done)


def _in_notebook() -> bool:
    """Whether stderr is a notebook's: of its kernel, or of a command that begins with `!`."""
    return "ipykernel" in sys.modules or "JPY_PARENT_PID" in os.environ


@contextmanager
def _line(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far it is in a line that is written over, without the codes of a terminal."""
    began = shown = time.monotonic()
    done = width = 0

    def write(text: str) -> None:
        nonlocal width
        _console.file.write(f"\r{text:{width}}")
        _console.file.flush()
        width = len(text)

    def advance(more: int) -> None:
        nonlocal done, shown
        done += more
        now = time.monotonic()
        if now - shown < LINE_SECONDS or not done:
            return
        shown = now
        if total is None:
            write(f"{title}: {done:,}")
        else:
            left = duration((now - began) * max(0, total - done) / done)
            write(f"{title}: {done:,} of {total:,}, {left} left")

    try:
        yield advance
    finally:
        if width:
            write("")
            _console.file.write("\r")
