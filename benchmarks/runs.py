"""Timed processes of `thawnet` and its rivals, and the environment of a benchmark's row."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from inputs import write_keras_weights
from memory import Memory
from thawnet.training.machine import decide

ROOT = Path(__file__).resolve().parents[1]
RIVALS = ROOT / "benchmarks" / "rivals"
POLL = 0.1  # seconds; the largest delay with which an epoch is noted
TAIL = 30  # lines shown of a failed process
THAWNET = ("-m", "thawnet", "train")

T = TypeVar("T")


class RunFailed(Exception):  # noqa: N818 - a measurement that failed
    """A process ended with an error; the message holds its last lines."""


@dataclass(frozen=True)
class Ended:
    """A process that ended successfully."""

    wall: float
    """Seconds from its start."""
    memory: int
    """Peak bytes of it and its descendants together."""
    lines: list[dict[str, Any]]
    """The JSON objects that it printed or logged, one per line."""
    at: list[float]
    """Seconds from its start until each of these lines appeared."""


def timed(
    command: Sequence[str],
    folder: Path,
    environment: dict[str, str] | None = None,
    log: str = "stdout.txt",
) -> Ended:
    """Run a command in a folder to its end, timed from the start of the process.

    environment: added to this process's. log: the file in the folder that holds its JSON lines.
    Raises RunFailed if the command fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output, errors = folder / "stdout.txt", folder / "stderr.txt"
    at: list[float] = []
    with output.open("w") as out, errors.open("w") as err:
        begun = time.monotonic()
        job = subprocess.Popen(
            list(command),
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdout=out,
            stderr=err,
        )
        memory = Memory(job.pid)
        memory.start()
        try:
            running = True
            while running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    job.wait(POLL)
                    running = False
                wall = time.monotonic() - begun
                for line in json_lines(folder / log)[len(at) :]:
                    at.append(round(wall, 2))
                    if "val_accuracy" in line:
                        say(f"epoch {line['epoch']:g}: {100 * line['val_accuracy']:.2f} %", wall)
        finally:
            if job.poll() is None:  # this process was told to stop
                job.terminate()
                job.wait()
            most = memory.stop()
    if job.returncode:
        said = (errors.read_text() + output.read_text()).splitlines()[-TAIL:]
        raise RunFailed(f"{as_typed(command)} ended with {job.returncode}:\n" + "\n".join(said))
    return Ended(wall, most, json_lines(folder / log), at)


def say(text: str, seconds: float) -> None:
    """Print progress on stderr."""
    print(f"{seconds:7.0f} s  {text}", file=sys.stderr, flush=True)


def as_typed(command: Sequence[str]) -> str:
    """Return a command as a person would type it at the root of the checkout."""
    words = ["python" if word == sys.executable else word for word in command]
    return shlex.join(os.path.relpath(word, ROOT) if word[:1] == "/" else word for word in words)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects on complete lines of a file; none if there is no file."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]


def caches(folder: Path, kept: Path | None = None) -> dict[str, str]:
    """Return the variables with which a process caches data, features and compiled code there.

    kept: where decoded images and compiled code lie instead, if they outlast the folder.
    """
    own = folder / "thawnet"
    if kept is not None and not own.exists():
        (kept / "stores").mkdir(parents=True, exist_ok=True)
        own.mkdir(parents=True)
        (own / "stores").symlink_to(kept / "stores")
    return {
        "THAWNET_CACHE": str(own),
        "TORCHINDUCTOR_CACHE_DIR": str((kept or folder) / "inductor"),
        "TRITON_CACHE_DIR": str((kept or folder) / "triton"),
    }


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """Yield an empty folder and remove it at the end, as a cache takes gigabytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Bench:
    """The environment of a row: data, weights, how much to do, and the commands run so far."""

    data: Path
    """CIFAR-100's parquet shards."""
    photos: Path
    """A folder of data sets, each a folder of class folders of photos."""
    weights: Path
    """MobileNetV2's, from ImageNet; EfficientNet-Lite0's are in the same folder."""
    scratch: Path
    """An empty folder for the row."""
    rehearsing: bool = False
    """Whether to do only a minimum of everything."""
    kept: Path | None = None
    """Where decoded images and compiled code are kept for the next row; None to begin without."""
    commands: list[str] = field(default_factory=list)

    def size(self, whole: T, rehearsed: T) -> T:
        """Return `whole`, or `rehearsed` in a rehearsal."""
        return rehearsed if self.rehearsing else whole

    @property
    def compiling(self) -> str:
        """The value of --compile: 'yes' if possible, but not in a rehearsal."""
        can = decide("cpu", "auto", "auto").compile != "no"
        return "yes" if can and not self.rehearsing else "no"

    @property
    def steps(self) -> tuple[str, ...]:
        """The arguments that make a rival time some of its steps."""
        count, warm = self.size((100, 20), (2, 2))
        return ("--steps", str(count), "--warm", str(warm))

    def train(
        self,
        words: Sequence[str],
        folder: Path,
        cache: Path,
        program: Sequence[str] = THAWNET,
        data: Path | None = None,
        photos: Path | None = None,
        weights: Path | None = None,
    ) -> dict[str, Any]:
        """Do one run on CIFAR-100, or on photos, in a new folder and return its figures.

        words: arguments of `thawnet train`. cache: folder of data, features and compiled code that
        a later run can reuse. program: Python's arguments that name the program. weights:
        MobileNetV2's if None.
        """
        inputs = ("cifar100", "--data-dir", str(data or self.data))
        # If a flag is repeated, the last one wins.
        short = self.size((), ("--epochs", "1", "1", "--compile", "no"))
        if photos is not None:
            inputs, short = (str(photos),), ()
        start = ("--weights", str(weights or self.weights))
        command = [sys.executable, *program, *inputs, *start, *short, *words, "--out", "run"]
        ended = timed(command, folder, caches(cache, self.kept), "run/log.jsonl")
        self.note(as_typed(command))
        result = json.loads((folder / "run" / "result.json").read_text())
        for part, scores in result["metrics"].items():
            say(f"{part} {100 * scores['accuracy']:.2f} %", ended.wall)
        names = (
            "metrics",
            "baselines",
            "kept",
            "seconds",
            "seed",
            "compiled",
            "cached",
            "machine",
            "versions",
        )
        return {
            "command": as_typed(command),
            "wall": round(ended.wall, 2),
            "memory": ended.memory,
            "epochs": [{**line, "at": at} for line, at in zip(ended.lines, ended.at, strict=True)],
            **{name: result[name] for name in names},
        }

    def script(self, path: Path, *words: object) -> list[dict[str, Any]]:
        """Run a script and return the JSON lines that it printed."""
        command = [sys.executable, str(path), *map(str, words)]
        with emptied(self.scratch / "script") as folder:
            ended = timed(command, folder, caches(folder / "cache", self.kept))
        self.note(as_typed(command))
        return ended.lines

    def keras(self, *words: object) -> list[dict[str, Any]]:
        """Run the Keras script from the shared weights."""
        weights = self.scratch / "keras.npz"
        write_keras_weights(self.weights, weights)
        return self.script(RIVALS / "keras_script.py", self.data, weights, *words)

    def note(self, command: str) -> None:
        """Remember a command, without duplicates."""
        if command not in self.commands:
            self.commands.append(command)
