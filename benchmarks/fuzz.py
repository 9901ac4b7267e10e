"""Feed every reader of something from outside with hostile input, and see that none is hurt.

    make fuzz                                    # or: python benchmarks/fuzz.py --seed 7
    python benchmarks/fuzz.py --targets decode --inputs 1000
    python benchmarks/fuzz.py --seed 7 --targets tar --only 1234     # one input again

Each target (fuzz_targets.py, fuzz_data.py) reads valid inputs that were spoilt (fuzz_mutate.py),
in processes of their own that may write to one folder alone, connect to nothing and start nothing.
A failure is whatever is no refusal in one sentence: another exception, a crash, more than SECONDS
of processor time or the stated memory, or a write elsewhere. Prints a line per target; saves the
input of every failure, and exits with 1 if there is one. An input follows from seed, target and
number alone.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import tyro

from thawnet.core.text import LONGEST, printable

SECONDS = 1.0  # of processor time that an input may take
ROOM = 4 * 2**30  # bytes: what is asked for beyond this is not had, so that the machine lives
STUCK = 60.0  # seconds without a word from a process
PIECE = 2000  # inputs for one process
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.symlink", "os.link",
             "socket.connect", "pickle.find_class", "ctypes.dlopen")  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod")


@dataclass(frozen=True)
class Options:
    """Fuzz the readers of images, archives, shards, tables, bundles, recipes and requests."""

    seed: int = 0
    """Decides all inputs."""
    targets: tuple[str, ...] = ()
    """Which; all without any."""
    inputs: int | None = None
    """How many for each target instead of its own number."""
    only: int | None = None
    """This input of one target alone, in this process, with its traceback."""
    jobs: int = os.cpu_count() or 1
    """Processes at once."""
    out: Path = Path("build/fuzz")
    """Where the inputs of failures go."""


@dataclass
class Tally:
    """What came of some inputs of a target. megabytes: at most beyond the beginning."""

    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    megabytes: float = 0.0
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count another piece too."""
        self.inputs += other.inputs
        self.accepted += other.accepted
        self.refused += other.refused
        self.slowest = max(self.slowest, other.slowest)
        self.megabytes = max(self.megabytes, other.megabytes)
        self.failures += other.failures


class Hang(BaseException):
    """An input took too long; no `except Exception` on the way takes it for its own error."""


class Escape(BaseException):
    """A reader did something outside its folder."""


def input_of(target: Any, seed: int, number: int) -> bytes:
    """Return the hostile input of this number."""
    made: bytes = target.make(random.Random(f"{seed} {target.name} {number}"))
    return made


# --- one process ----------------------------------------------------------------------------------


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Raise Escape where Python is asked for something outside a folder, from here on.

    The interpreter's audit events: https://docs.python.org/3/library/audit_events.html
    """
    inside = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not inside:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and flags & WRITING:
                check(event, path)
        elif event in CHANGING:
            check(event, arguments[0])
        elif event in FORBIDDEN:
            raise Escape(f"{event}{arguments[:2]!r:.80}")

    def check(event: str, path: Any) -> None:
        if isinstance(path, int):
            return
        # Not resolve(): that would raise events of its own. There are no links inside.
        full = os.path.normpath(folder / os.fsdecode(path))
        if full != str(folder) and not full.startswith(f"{folder}{os.sep}") and full != os.devnull:
            raise Escape(f"{event} of {full}")

    sys.addaudithook(hook)
    try:
        yield
    finally:
        inside = False


def piece(name: str, seed: int, first: int, count: int, folder: Path, word: Path) -> Tally:
    """Run some inputs of a target in this process, which has done nothing else."""
    from fuzz_targets import TARGETS

    os.environ["THAWNET_CACHE"] = str(folder / "cache")
    os.environ["HOME"] = tempfile.tempdir = str(folder)
    os.chdir(folder)
    target = TARGETS[name](folder)
    for valid in target.seeds:  # imports and pools come with the first
        with suppress(*target.refusals):
            target.run(valid)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _address_space() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGPROF, _hang)
    tally = Tally()
    handle = os.open(word, os.O_WRONLY | os.O_CREAT)
    with guarded(folder):
        for number in range(first, first + count):
            os.pwrite(handle, b"%12d" % number, 0)
            content = input_of(target, seed, number)
            _one(target, number, content, tally)
    tally.megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if tally.megabytes > target.megabytes:
        tally.failures.append((first, f"{tally.megabytes:,.0f} MB in {count:,} inputs from here"))
    return tally


def _address_space() -> int:
    """Return the bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise Hang(f"over {SECONDS:g} s")


def _one(target: Any, number: int, content: bytes, tally: Tally) -> None:
    tally.inputs += 1
    started = time.process_time()
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            target.run(content)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        tally.accepted += 1
    except target.refusals as error:
        tally.refused[type(error).__name__] += 1
        if printable(str(error)) != str(error) or len(str(error)) > LONGEST:
            tally.failures.append((number, f"no sentence: {str(error)[:200]!r}"))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        tally.failures.append((number, f"{type(error).__name__}: {str(error)[:200]!r}"))
    spent = time.process_time() - started
    tally.slowest = max(tally.slowest, spent)
    if spent > SECONDS and (not tally.failures or tally.failures[-1][0] != number):
        tally.failures.append((number, f"{spent:.1f} s"))


# --- all of them ----------------------------------------------------------------------------------


def fuzz(name: str, seed: int, first: int, count: int, work: Path) -> Tally:
    """Run some inputs in processes of their own; where one dies, the next goes on behind it."""
    total = Tally()
    end = first + count
    while first < end:
        folder = Path(tempfile.mkdtemp(dir=work, prefix=f"{name}-"))
        inside, word, report = folder / "inside", folder / "number", folder / "report"
        inside.mkdir()
        command = [sys.executable, __file__, "--piece", name, str(seed), str(first)]
        # libtiff writes there what it does not like.
        with (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen([*command, str(end - first), str(folder)], stderr=stderr)
        seen, since = "", time.monotonic()
        while process.poll() is None:
            time.sleep(0.05)
            now = word.read_text() if word.exists() else ""
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > STUCK:
                process.kill()
        left = {path.name for path in folder.iterdir()} - {"inside", "number", "report", "stderr"}
        if process.returncode == 0:
            found = Tally(**json.loads(report.read_text()))
            found.refused = Counter(found.refused)
            total.add(found)
            first = end
        else:
            number = int(seen or first)
            total.inputs += number + 1 - first
            last = (folder / "stderr").read_text(errors="replace").strip().splitlines()[-1:]
            total.failures.append((number, f"the process ended with {process.returncode} {last}"))
            first = number + 1
        if left:
            total.failures.append((first, f"left outside its folder: {sorted(left)}"))
    return total


def main(options: Options) -> int:
    """Fuzz and print; return the exit status."""
    from fuzz_targets import TARGETS

    names = options.targets or tuple(TARGETS)
    if unknown := set(names) - set(TARGETS):
        sys.exit(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if options.only is not None:
        target = TARGETS[names[0]](Path(tempfile.mkdtemp()))
        os.environ["THAWNET_CACHE"] = str(target.folder / "cache")
        try:
            target.run(input_of(target, options.seed, options.only))
            print("accepted")
        except target.refusals as error:
            print(f"refused: {error}")
        return 0
    started = time.monotonic()
    print(f"seed {options.seed}, {options.jobs} processes", flush=True)
    tallies = {name: Tally() for name in names}
    with (
        tempfile.TemporaryDirectory(prefix="thawnet-fuzz-") as scratch,
        ThreadPoolExecutor(options.jobs) as pool,
    ):
        work = Path(scratch).resolve()
        jobs = []
        for name in names:
            count = options.inputs or TARGETS[name].inputs
            for first in range(0, count, PIECE):
                some = min(PIECE, count - first)
                jobs.append((name, pool.submit(fuzz, name, options.seed, first, some, work)))
        for name, job in jobs:
            tallies[name].add(job.result())
        for name, tally in tallies.items():
            _save(TARGETS[name](work), tally, options)
    _print(tallies, time.monotonic() - started)
    return 1 if any(tally.failures for tally in tallies.values()) else 0


def _save(target: Any, tally: Tally, options: Options) -> None:
    for number, why in tally.failures:
        path = options.out / f"{target.name}-{options.seed}-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(input_of(target, options.seed, number))
        print(f"FAILED {target.name} {number}: {why}; input in {path}", flush=True)


def _print(tallies: dict[str, Tally], seconds: float) -> None:
    print(f"{'target':12}{'inputs':>9}{'accepted':>10}{'slowest':>10}{'memory':>9}  refused")
    for name, tally in tallies.items():
        refused = ", ".join(f"{kind} {count:,}" for kind, count in tally.refused.most_common())
        print(
            f"{name:12}{tally.inputs:9,}{tally.accepted:10,}{tally.slowest:8.2f} s"
            f"{tally.megabytes:6.0f} MB  {refused}"
        )
    failed = sum(len(tally.failures) for tally in tallies.values())
    total = sum(tally.inputs for tally in tallies.values())
    print(f"{total:,} inputs in {seconds:.0f} s, {failed:,} failures")


def _piece(words: list[str]) -> None:
    """Be the process that `fuzz` starts."""
    name, seed, first, count, folder = words
    place = Path(folder)
    tally = piece(name, int(seed), int(first), int(count), place / "inside", place / "number")
    (place / "report").write_text(json.dumps(vars(tally)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--piece"]:
        _piece(sys.argv[2:])
    else:
        sys.exit(main(tyro.cli(Options, description=__doc__)))
