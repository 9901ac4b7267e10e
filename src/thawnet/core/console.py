"""Lines and progress bars on stderr, results on stdout."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
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

LINE_SECONDS = 1.0  # between updates of a progress line in a notebook
LOG_SECONDS = 60.0  # between lines of progress where there is no terminal

Unit = Literal["images", "bytes"]


class _Stderr:
    """The current `sys.stderr`; a line that cannot be written does not stop the job."""

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
_muted = ContextVar("muted", default=False)  # per thread


def prepare() -> None:
    """Make stdout and stderr accept any text: characters that their encoding lacks are escaped.

    A missing stream, as in a service or under pythonw, is replaced by the null device.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - to the end
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def follow(rank: int) -> None:
    """Set the rank of this process: only rank 0 prints, but every rank reports failures."""
    global _rank
    _rank = rank


@contextmanager
def muted() -> Iterator[None]:
    """Suppress the lines and progress bars of this thread within the block."""
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
    """Print on stderr, from any rank, why the command failed."""
    who = f"thawnet, rank {_rank}" if _rank else "thawnet"
    _console.print(f"{who}: {printable(text)}", markup=False)


def result(text: str) -> None:
    """Print lines on stdout; terminal codes are removed on a terminal, but not in a pipe."""
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
    """Discard what native code prints on stdout within the block, as torch does with a graph."""
    with _discarded(1):
        yield


@contextmanager
def _discarded(number: int) -> Iterator[None]:
    """Discard what is written to a file descriptor within the block: 1, stdout, or 2, stderr."""
    stream = sys.stdout if number == 1 else sys.stderr
    with suppress(OSError, ValueError, AttributeError):  # closed, or there is none
        stream.flush()
    try:
        own = os.dup(number)
    except OSError:  # it is not open
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, number)
    os.close(nothing)
    try:
        yield
    finally:
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
        os.dup2(own, number)
        os.close(own)


@contextmanager
def without_output() -> Iterator[None]:
    """Discard what libraries print within the block, in Python or not, on stdout and stderr."""
    nothing = io.StringIO()  # in a notebook, Python's streams are not the process's
    with _discarded(1), _discarded(2), redirect_stdout(nothing), redirect_stderr(nothing):
        yield


def drop_stdout() -> None:
    """Discard Python's buffer for stdout: writing it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def progress(
    title: str, total: int | None, unit: Unit = "images"
) -> Iterator[Callable[[int], None]]:
    """Show a bar with speed and time left on a terminal; yield the function that advances it.

    total: None if unknown. A notebook gets a line that is overwritten; a log file gets a line each
    minute.
    """
    hidden = bool(_rank) or _muted.get()
    if _in_notebook() and not hidden:
        with _line(printable(title), total, unit) as advance:
            yield advance
        return
    drawn = _console.is_terminal and not _console.is_dumb_terminal
    if not drawn and not hidden:
        yield _told(LOG_SECONDS, title, total, unit, say)
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
        disable=hidden,
        redirect_stdout=False,  # or results printed meanwhile would go to stderr
    )
    with bars:
        task = bars.add_task(printable(title), total=total)
        yield lambda done: bars.advance(task, done)


def _in_notebook() -> bool:
    """Return whether stderr goes to a notebook, from its kernel or from a `!` command."""
    return "ipykernel" in sys.modules or "JPY_PARENT_PID" in os.environ


@contextmanager
def _line(title: str, total: int | None, unit: Unit) -> Iterator[Callable[[int], None]]:
    """Show progress in a line that is overwritten, without terminal codes."""
    width = 0

    def write(text: str) -> None:
        nonlocal width
        _console.file.write(f"\r{text:{width}}")
        _console.file.flush()
        width = len(text)

    try:
        yield _told(LINE_SECONDS, title, total, unit, write)
    finally:
        if width:
            write("")
            _console.file.write("\r")


def _told(
    seconds: float, title: str, total: int | None, unit: Unit, write: Callable[[str], None]
) -> Callable[[int], None]:
    """Return a function that advances progress and writes it as text, once in so many seconds."""
    began = shown = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal done, shown
        done += more
        now = time.monotonic()
        if now - shown < seconds or not done:
            return
        shown = now
        if total is None:
            write(f"{title}: {_amount(done, unit)}")
        else:
            left = duration((now - began) * max(0, total - done) / done)
            write(f"{title}: {_amount(done, unit)} of {_amount(total, unit)}, {left} left")

    return advance


def _amount(count: int, unit: Unit) -> str:
    return f"{count / 1e6:,.1f} MB" if unit == "bytes" else f"{count:,}"
