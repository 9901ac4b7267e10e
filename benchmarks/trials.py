"""One timed process: `thawnet` or a rival, from its start to each epoch's accuracy and its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memory import Memory

ROOT = Path(__file__).resolve().parents[1]
RIVALS = ROOT / "benchmarks" / "rivals"
POLL = 0.1  # seconds; by so much at most an epoch is noted too late
SCRATCH = "scratch."
TAIL = 30  # lines of a failed process that are shown

Say = Callable[[str], None]


class TrialFailed(Exception):  # noqa: N818 - a measurement that did not come about
    """A process ended with an error; the message holds its last lines."""


@dataclass(frozen=True)
class Ended:
    """A process that ended well: its seconds, the most memory of its tree, its JSON lines."""

    command: str
    wall: float
    memory: int
    lines: list[dict[str, Any]]


def timed(
    command: Sequence[str],
    place: Path,
    environment: dict[str, str] | None = None,
    look: Callable[[float], None] = lambda _seconds: None,
) -> Ended:
    """Run a command in a folder to its end; its clock starts with the process.

    environment: added to this process's. look: called with the seconds since the start, ten times
    a second and once after the end. Raises TrialFailed.
    """
    place.mkdir(parents=True, exist_ok=True)
    output, errors = place / "stdout.txt", place / "stderr.txt"
    with output.open("w") as out, errors.open("w") as err:
        begun = time.monotonic()
        job = subprocess.Popen(
            list(command),
            cwd=place,
            env={**os.environ, **(environment or {})},
            stdout=out,
            stderr=err,
        )
        memory = Memory(job.pid)
        memory.start()
        try:
            while job.poll() is None:
                look(time.monotonic() - begun)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    job.wait(POLL)
            wall = time.monotonic() - begun
        finally:
            if job.poll() is None:  # this process was told to stop
                job.terminate()
                job.wait()
            most = memory.stop()
    look(wall)
    if job.returncode:
        said = (errors.read_text() + output.read_text()).splitlines()[-TAIL:]
        raise TrialFailed(f"{shown(command)} ended with {job.returncode}:\n" + "\n".join(said))
    return Ended(shown(command), wall, most, json_lines(output))


def shown(command: Sequence[str]) -> str:
    """Return a command as a person would type it at the root of the checkout."""
    words = ["python" if word == sys.executable else word for word in command]
    words = [os.path.relpath(word, ROOT) if word[:1] == "/" else word for word in words]
    # The chance part of a scratch folder's name says nothing.
    return re.sub(rf"{re.escape(SCRATCH)}\w+", "scratch", shlex.join(words))


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file that are there in whole, a line each; none yet if none."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    lines = text.splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]


class EpochWatch:
    """Notes when each line of a file of epochs appeared, and tells of it."""

    def __init__(self, path: Path, tell: Say) -> None:
        self.path = path
        self.tell = tell
        self.at: list[float] = []

    def __call__(self, seconds: float) -> None:
        """Look whether there are more lines than before."""
        for row in json_lines(self.path)[len(self.at) :]:
            self.at.append(round(seconds, 2))
            at = row.get("at", seconds)  # a rival's own clock knows of an earlier start
            self.tell(f"{at:7.0f} s  epoch {row['epoch']}: {100 * row['val_accuracy']:.2f} %")

    def epochs(self) -> list[dict[str, Any]]:
        """Return the lines, each with the seconds at which it appeared."""
        # The last write marks the epochs kept, so the lines are read again.
        pairs = zip(json_lines(self.path), self.at, strict=True)
        return [{**row, "at": at} for row, at in pairs]


def thawnet(
    words: Sequence[str],
    place: Path,
    cache: Path,
    program: Sequence[str] = ("-m", "thawnet", "train"),
    tell: Say = lambda _text: None,
) -> dict[str, Any]:
    """Do one run in a new folder and return its figures.

    words: after `thawnet train`. cache: holds what a later run could read: data, features and
    compiled code. program: what Python is given to run.
    """
    watch = EpochWatch(place / "run" / "log.jsonl", tell)
    command = [sys.executable, *program, *words, "--out", "run"]
    ended = timed(command, place, caches(cache), watch)
    result = json.loads((place / "run" / "result.json").read_text())
    kept = ("metrics", "seconds", "seed", "compiled", "cached", "machine", "versions")
    return {
        "command": ended.command,
        "wall": round(ended.wall, 2),
        "memory": ended.memory,
        "epochs": watch.epochs(),
        **{name: result[name] for name in kept},
    }


def caches(folder: Path) -> dict[str, str]:
    """Return the environment in which a process keeps what it may read again in a folder."""
    return {
        "THAWNET_CACHE": str(folder / "thawnet"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in `parent`, gone in the end with the gigabytes that a cache takes."""
    parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=parent))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove the scratch folders of a process that was killed."""
    for place in parent.glob(f"{SCRATCH}*"):
        shutil.rmtree(place, ignore_errors=True)
