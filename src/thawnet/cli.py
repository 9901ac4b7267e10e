"""The command line: commands, overview, and the handling of signals and user errors."""

from __future__ import annotations

import functools
import itertools
import operator
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated, Any, cast

import tyro

from . import __version__
from .commands.backbones import BackbonesOptions, backbones
from .commands.cache import CacheOptions, cache
from .commands.compare import CompareOptions, compare
from .commands.doctor import DoctorOptions, doctor
from .commands.evaluate import EvaluateOptions, evaluate
from .commands.export import ExportOptions, export
from .commands.inspect import InspectOptions, inspect
from .commands.predict import PredictOptions, predict
from .commands.report import ReportOptions, report
from .commands.serve import ServeOptions, serve
from .commands.train import train
from .core import console
from .core.columns import aligned
from .core.errors import (
    DiskFullError,
    InterruptedRunError,
    ThawnetError,
    UsageError,
    is_stop,
    suggest,
)
from .core.files import find_temporary_folder
from .core.flags import parse
from .recipe import TrainOptions

# The commands in the order of the overview: the options of each, and the function that runs it.
COMMANDS: dict[str, tuple[type, Callable[[Any], object]]] = {
    "train": (TrainOptions, train),
    "predict": (PredictOptions, predict),
    "evaluate": (EvaluateOptions, evaluate),
    "inspect": (InspectOptions, inspect),
    "doctor": (DoctorOptions, doctor),
    "backbones": (BackbonesOptions, backbones),
    "compare": (CompareOptions, compare),
    "export": (ExportOptions, export),
    "report": (ReportOptions, report),
    "serve": (ServeOptions, serve),
    "cache": (CacheOptions, cache),
}


OVERVIEW = """\
Train an image classifier from a pretrained network in two phases: freeze it and learn a new head,
then thaw its upper layers and fine-tune.

Start here:
  thawnet train digits          real handwritten digits: two minutes, no download
  thawnet inspect photos        check your own photos, one folder per class
  thawnet train photos          train on them; prints how to use the result
  thawnet predict photo.jpg     name what is in a photo

Commands:
{commands}

`thawnet COMMAND --help` lists a command's options, `thawnet --version` says the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0: done. 1: failed. 2: wrong call. 130, 143: stopped. 141: nobody reads stdout.
    """
    words = fill_resume(sys.argv[1:] if arguments is None else arguments)

    def job() -> None:
        if not words or words in (["-h"], ["--help"]):
            console.result(overview())
        elif words == ["--version"]:
            console.result(f"thawnet {__version__}")
        else:
            run(words)

    return guarded(job)


def overview() -> str:
    """Return the overview: first steps, and each command with its first line of help."""
    rows = [
        (f"  {name}", (options.__doc__ or "").partition("\n")[0])
        for name, (options, _) in COMMANDS.items()
    ]
    return OVERVIEW.format(commands="\n".join(aligned(rows, first=30)))


def run(words: Sequence[str]) -> None:
    """Run the command that `words` begin with. Raises UsageError if there is no such command."""
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        raise UsageError(f"'{words[0]}': no such command; {suggest(words[0], COMMANDS)}")
    kinds = [Annotated[kind, tyro.conf.subcommand(name)] for name, (kind, _) in COMMANDS.items()]
    options = parse(functools.reduce(operator.or_, cast("Any", kinds)), words, prog="thawnet")
    dict(COMMANDS.values())[type(options)](options)


def entry() -> None:
    """Run the `thawnet` command and exit with its status."""
    sys.exit(main())


def guarded(job: Callable[[], object]) -> int:
    """Run a job; turn a user error or a stop into one line on stderr and an exit status."""
    stop: signal.Signals | None = None
    console.prepare()
    find_temporary_folder()

    def act(number: int, frame: FrameType | None) -> None:
        nonlocal stop
        stop = signal.Signals(number)
        if is_importing(frame):
            # An exception while a C++ extension is imported may abort the process.
            later = threading.Timer(0.05, signal_to, (threading.get_ident(), number))
            later.daemon = True
            later.start()
            return
        raise KeyboardInterrupt  # which no `except Exception` on the way up catches

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, act)
    try:
        job()
    except BrokenPipeError:
        # The reader of stdout, such as `head`, has closed it: a flush at exit would fail.
        console.drop_stdout()
        return 141  # 128 + SIGPIPE, which Windows does not define
    except (Exception, KeyboardInterrupt) as error:
        # C++ code may replace KeyboardInterrupt by an error of its own: safetensors' reader does.
        stopped = stop is not None or is_stop(error) or isinstance(error, InterruptedRunError)
        if not stopped and not isinstance(error, ThawnetError):
            raise
        # The job is over; another signal would only cut off its last message.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        # What fails in a job that is being stopped is not worth a message, but a full disk is.
        if isinstance(error, DiskFullError if stopped else ThawnetError):
            console.fail(str(error))
            return error.exit_code
        console.say(f"thawnet: {error if isinstance(error, InterruptedRunError) else 'stopped'}")
        # After a KeyboardInterrupt passed through an `exec`, as in dataclasses, Python exits by
        # SIGINT whatever its exit status, until the next `exec`.
        exec("")  # noqa: S102 - nothing is executed, see above
        return 128 + (stop or signal.SIGINT)
    return 0


def signal_to(thread: int, number: int) -> None:
    """Send a signal to a thread to end what it waits for; on Windows, to the whole process."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(thread, number)
    else:
        signal.raise_signal(number)


def is_importing(frame: FrameType | None) -> bool:
    """Return whether a frame of a job is inside the import of a module."""
    while frame is not None and frame.f_code is not guarded.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def fill_resume(arguments: Sequence[str]) -> list[str]:
    """Allow `--resume` without a value, which means the newest unfinished run."""
    filled: list[str] = []
    for word, following in itertools.pairwise([*arguments, "-"]):
        filled.append(word)
        if word == "--resume" and following.startswith("-"):
            filled.append("")
    return filled
