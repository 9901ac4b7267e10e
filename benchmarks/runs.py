"""Timed processes of `thawnet` and of its rivals, and where rows of the benchmark find things."""

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
POLL = 0.1  # seconds; an epoch is noted too late by at most so much
TAIL = 30  # lines of a failed process that are shown
THAWNET = ("-m", "thawnet", "train")

T = TypeVar("T")


class RunFailed(Exception):  # noqa: N818 - a measurement that did not come about
    """A process ended with an error; the message holds its last lines."""


@dataclass(frozen=True)
class Ended:
    """A process that ended well."""

    wall: float
    """Seconds from its start."""
    memory: int
    """Bytes that it and all its processes held at most."""
    lines: list[dict[str, Any]]
    """The JSON objects that it printed or logged, a line each."""
    at: list[float]
    """Seconds from its start until each of these was there."""


def timed(
    command: Sequence[str],
    folder: Path,
    environment: dict[str, str] | None = None,
    log: str = "stdout.txt",
) -> Ended:
    """Run a command in a folder to its end; its clock starts with the process.

    environment: added to this process's. log: the file in the folder that holds its JSON lines.
    Raises RunFailed.
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
    """Tell of progress."""
    print(f"{seconds:7.0f} s  {text}", file=sys.stderr, flush=True)


def as_typed(command: Sequence[str]) -> str:
    """Return a command as a person would type it at the root of the checkout."""
    words = ["python" if word == sys.executable else word for word in command]
    return shlex.join(os.path.relpath(word, ROOT) if word[:1] == "/" else word for word in words)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects that stand whole in a file, a line each; none if there is no file."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]


def caches(folder: Path) -> dict[str, str]:
    """Return the environment in which a process caches data, features and compiled code there."""
    return {
        "THAWNET_CACHE": str(folder / "thawnet"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; it goes in the end, with the gigabytes that a cache takes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Bench:
    """Where a row finds data and weights, how much it does, and the commands it ran so far."""

    data: Path
    """CIFAR-100's parquet shards."""
    photos: Path
    """Holds folders of class folders of photos."""
    weights: Path
    """MobileNetV2's from ImageNet; EfficientNet-Lite0's lie beside it."""
    scratch: Path
    """An empty folder for the row."""
    rehearsing: bool = False
    """Next to nothing of everything is done."""
    commands: list[str] = field(default_factory=list)

    def size(self, whole: T, rehearsed: T) -> T:
        """Return how much is done of something."""
        return rehearsed if self.rehearsing else whole

    @property
    def lite(self) -> Path:
        """EfficientNet-Lite0's weights from ImageNet."""
        return self.weights.with_name("tf_efficientnet_lite0_imagenet.safetensors")

    @property
    def compiling(self) -> str:
        """The value of --compile where every run is compiled that can be."""
        can = decide("cpu", "auto", "auto").compile != "no"
        return "yes" if can and not self.rehearsing else "no"

    @property
    def steps(self) -> tuple[str, ...]:
        """The words that make a rival time some of its steps."""
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

        words: after `thawnet train`. cache: holds what a later run could read: data, features and
        compiled code. program: what Python is given to run. weights: MobileNetV2's if None.
        """
        inputs = ("cifar100", "--data-dir", str(data or self.data))
        # The last of two equal flags wins.
        short = self.size((), ("--epochs", "1", "1", "--compile", "no"))
        if photos is not None:
            inputs, short = (str(photos),), ()
        start = ("--weights", str(weights or self.weights))
        command = [sys.executable, *program, *inputs, *start, *short, *words, "--out", "run"]
        ended = timed(command, folder, caches(cache), "run/log.jsonl")
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
            ended = timed(command, folder, caches(folder / "cache"))
        self.note(as_typed(command))
        return ended.lines

    def keras(self, *words: object) -> list[dict[str, Any]]:
        """Run the Keras script from the shared weights."""
        weights = self.scratch / "keras.npz"
        write_keras_weights(self.weights, weights)
        return self.script(RIVALS / "keras_script.py", self.data, weights, *words)

    def note(self, command: str) -> None:
        """Remember a command, once."""
        if command not in self.commands:
            self.commands.append(command)
