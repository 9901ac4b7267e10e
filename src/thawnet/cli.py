"""The command line: parse, call, print."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from . import console
from .diagnosis import DoctorOptions, doctor
from .errors import InterruptedRunError, ThawnetError, UsageError, is_stop
from .evaluation import EvaluateOptions, print_evaluation
from .exporting import ExportOptions, export
from .inspection import InspectOptions, inspect
from .packages import COMPARE_PACKAGES, TRAIN_PACKAGES, require_installed
from .prediction import PredictOptions, predict
from .recipe import TrainOptions
from .reporting import ReportOptions, report
from .serving import ServeOptions, serve
from .text import command_line

if TYPE_CHECKING:
    from .training.outcome import Outcome


@dataclass(frozen=True)
class CacheOptions:
    """Show or remove what is cached: decoded images, unpacked archives, frozen activations."""

    action: Annotated[Literal["list", "clear"], tyro.conf.Positional]
    """list: one line per entry and the total; clear: remove all but what is being built."""


@dataclass(frozen=True)
class CompareOptions:
    """Compare two finished runs on the images that both were measured on.

    The table and the verdict go to stdout; McNemar's exact test decides.
    """

    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run folder, called A."""
    second: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Another one, called B."""
    out: Annotated[Path, tyro.conf.arg(metavar="PNG")] = Path("compare.png")
    """Where the picture goes; a file there is replaced."""


Command = (
    Annotated[TrainOptions, tyro.conf.subcommand("train")]
    | Annotated[PredictOptions, tyro.conf.subcommand("predict")]
    | Annotated[EvaluateOptions, tyro.conf.subcommand("evaluate")]
    | Annotated[InspectOptions, tyro.conf.subcommand("inspect")]
    | Annotated[DoctorOptions, tyro.conf.subcommand("doctor")]
    | Annotated[CompareOptions, tyro.conf.subcommand("compare")]
    | Annotated[ExportOptions, tyro.conf.subcommand("export")]
    | Annotated[ReportOptions, tyro.conf.subcommand("report")]
    | Annotated[ServeOptions, tyro.conf.subcommand("serve")]
    | Annotated[CacheOptions, tyro.conf.subcommand("cache")]
)

_Options = (
    TrainOptions
    | PredictOptions
    | EvaluateOptions
    | InspectOptions
    | DoctorOptions
    | CompareOptions
    | ExportOptions
    | ReportOptions
    | ServeOptions
    | CacheOptions
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 failed, 2 wrong call, 130/143 stopped."""
    given = fill_resume(sys.argv[1:] if arguments is None else arguments)

    def job() -> None:
        command: _Options = tyro.cli(
            Command,
            args=given,
            prog="thawnet",
            description="Train an image classifier from a pretrained network in two phases.",
        )
        if isinstance(command, TrainOptions):
            train(command)
        elif isinstance(command, PredictOptions):
            predict(command)
        elif isinstance(command, EvaluateOptions):
            print_evaluation(command)
        elif isinstance(command, InspectOptions):
            inspect(command)
        elif isinstance(command, DoctorOptions):
            doctor(command)
        elif isinstance(command, CompareOptions):
            compare(command)
        elif isinstance(command, ExportOptions):
            export(command)
        elif isinstance(command, ReportOptions):
            report(command)
        elif isinstance(command, ServeOptions):
            serve(command)
        else:
            cache(command)

    return guarded(job)


def entry() -> None:
    """The `thawnet` command."""
    sys.exit(main())


def guarded(job: Callable[[], object]) -> int:
    """Run a job; a user's mistake or a stop becomes one line on stderr and an exit status."""
    stop = signal.SIGINT

    def act(number: int, frame: FrameType | None) -> None:
        nonlocal stop
        stop = signal.Signals(number)
        if is_importing(frame):
            # C++ that is being imported may take an exception for the end of the world.
            later = threading.Timer(0.05, signal_to, (threading.get_ident(), number))
            later.daemon = True
            later.start()
            return
        raise KeyboardInterrupt  # no `except Exception` on the way up takes it for its own error

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, act)
    try:
        job()
    except BrokenPipeError:
        # Whoever read stdout, such as `head`, has enough; nothing must be flushed there at the end.
        console.drop_stdout()
        return 141  # 128 + SIGPIPE, which Windows has no name for
    except (Exception, KeyboardInterrupt) as error:
        if not isinstance(error, ThawnetError) and not is_stop(error):
            raise
        # It ends now; another signal would only cut off what there is to say.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if isinstance(error, ThawnetError) and not isinstance(error, InterruptedRunError):
            console.fail(str(error))
            return error.exit_code
        told = isinstance(error, InterruptedRunError)
        console.say(f"thawnet: {error if told else 'stopped'}")
        # A stop that passed through an `exec`, as of dataclasses, makes Python end by SIGINT
        # whatever status it is given, until the next `exec`.
        exec("")  # noqa: S102
        return 128 + stop
    return 0


def signal_to(thread: int, number: int) -> None:
    """Send a signal to a thread, and so end what it waits for; Windows has signals for none."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(thread, number)
    else:
        signal.raise_signal(number)


def is_importing(frame: FrameType | None) -> bool:
    """Whether a job is importing a module in a frame."""
    while frame is not None and frame.f_code is not guarded.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def train(options: TrainOptions) -> Outcome:
    """Train, and print the accuracy as the last line on stdout."""
    require_installed("training", TRAIN_PACKAGES)
    from .training.reporting import REPORT
    from .training.run import train as run

    outcome = run(options)
    console.say(f"plot {outcome.folder / 'history.png'}, network {outcome.folder / 'bundle'}")
    if (outcome.folder / REPORT).exists():
        console.say(f"report {outcome.folder / REPORT}: open it in a browser")
    use = command_line("thawnet", "predict", "IMAGES", "--model", outcome.folder)
    console.say(f"use it: {use}")
    for line in outcome.lines:
        console.result(line)
    return outcome


def compare(options: CompareOptions) -> None:
    """Print two runs side by side, draw them, and say in the last line who is better."""
    require_installed("comparing", COMPARE_PACKAGES)
    from .report import compare as pair
    from .report.compare_plot import plot_comparison

    if options.out.suffix.lower() != ".png":
        raise UsageError(f"--out '{options.out}': the picture is a PNG; name it so, as in a.png")
    found = pair.compare(options.first, options.second)
    plot_comparison(options.out, found)
    console.say(f"picture {options.out}")
    for line in (*pair.table(found), pair.verdict(found)):
        console.result(line)


def cache(options: CacheOptions) -> None:
    """List or clear the cache."""
    from .building import clear_cache
    from .files import cache_entries, cache_folder

    folder = cache_folder()
    if options.action == "clear":
        console.result(f"removed {clear_cache(console.say) / 1e6:,.1f} MB from {folder}")
        return
    entries = cache_entries()
    for path, size in entries:
        unfinished = " (unfinished)" if path.name.startswith(".") else ""
        console.result(f"{size / 1e6:12,.1f} MB  {path.relative_to(folder)}{unfinished}")
    total = sum(size for _, size in entries)
    console.result(f"{total / 1e6:12,.1f} MB  in {len(entries)} entries under {folder}")


def fill_resume(arguments: Sequence[str]) -> list[str]:
    """Let `--resume` stand without a value, meaning the newest unfinished run."""
    filled: list[str] = []
    for place, word in enumerate(arguments):
        filled.append(word)
        following = arguments[place + 1 : place + 2]
        if word == "--resume" and (not following or following[0].startswith("-")):
            filled.append("")
    return filled
