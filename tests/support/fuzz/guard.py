"""What an input must not do to a reader: crash it, keep it busy, or let it out of its folder."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from support.fuzz.target import Target
from thawnet.core.text import LONGEST, printable

resource = pytest.importorskip("resource", reason="Windows has no limits for a process")

SECONDS = 1.0  # of processor time that an input may take
ROOM = 4 * 2**30  # bytes: what is asked for beyond this is not had, so that the machine lives
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.symlink", "os.link",
             "socket.connect", "pickle.find_class", "ctypes.dlopen")  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod")


class HangError(BaseException):
    """An input took too long; no `except Exception` on the way takes it for its own error."""


class EscapeError(BaseException):
    """A reader did something outside its folder."""


def stand(target: Target, content: bytes) -> bool:
    """Let a reader have an input; return whether it was accepted, not refused in a sentence.

    Anything else is raised: another exception, HangError, EscapeError, AssertionError.
    """
    with confined(target.folder), limited(SECONDS):
        try:
            target.run(content)
        except target.refusals as error:
            refusal = str(error)
        else:
            return True
    assert refusal == printable(refusal), f"codes in {refusal[:200]!r}"
    assert len(refusal) <= LONGEST, f"{len(refusal):,} characters: {refusal[:200]!r}"
    return False


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise HangError after so many seconds of processor time."""

    def hang(_number: int, _frame: FrameType | None) -> None:
        raise HangError(f"over {seconds:g} s")

    before = signal.signal(signal.SIGPROF, hang)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


_inside: list[str] = []  # the folder that may be written to, while a reader is confined


@contextmanager
def confined(folder: Path) -> Iterator[None]:
    """Raise EscapeError where Python is asked for something outside a folder.

    The interpreter's audit events: https://docs.python.org/3/library/audit_events.html
    """
    _install()
    _inside.append(str(folder))
    try:
        yield
    finally:
        _inside.pop()


@cache
def _install() -> None:
    """Add the hook, which stays for ever and looks only while a reader is confined."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not _inside:
            return
        if event in FORBIDDEN:
            raise EscapeError(f"{event}{arguments[:2]!r:.80}")
        if event not in CHANGING and not (event == "open" and arguments[2] & WRITING):
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):  # a file that is open already
            return
        # Not resolve(): that would raise events of its own. There are no links inside.
        folder = _inside[-1]
        full = os.path.normpath(os.path.join(folder, os.fsdecode(path)))  # noqa: PTH118 - as above
        if full != folder and not full.startswith(f"{folder}{os.sep}") and full != os.devnull:
            raise EscapeError(f"{event} of {full}")

    sys.addaudithook(hook)


@contextmanager
def address_space() -> Iterator[None]:
    """Let this process have ROOM more of address space than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
