"""Kill training at random moments, go on, and compare the bits with those of a run left alone.

    make soak                                  # or: python benchmarks/soak.py --kills 100

Each case is a small run on real images. It is done twice undisturbed, once on an empty cache and
once on a full one, and then again and again on an empty cache: killed up to --kills-per-run times,
resumed each time, and left to finish. What must be equal is every tensor of the network and every
prediction. A kill comes after a random time, or the moment a file of some kind is being written.
Prints a line per run and, last, how many kills there were and how many runs were lost (a resume
failed), different (other bits) or stuck (no end in sight).
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from safetensors.numpy import load_file

STUCK = 300.0  # seconds without an end
PHOTOS = 40  # of each class of flowers


@dataclass(frozen=True)
class Case:
    """A run to disturb: its name and the words after `thawnet train`."""

    name: str
    words: tuple[str, ...]


@dataclass
class Tally:
    """What the kills came to."""

    kills: int = 0
    lost: int = 0
    different: int = 0
    stuck: int = 0
    stages: Counter[str] = field(default_factory=Counter)


def cases(shared: Path, work: Path) -> list[Case]:
    """Return the cases that the data at hand allows."""
    short = ("--compile", "no", "--epochs", "2", "3")  # the last --compile wins
    found = [
        Case("digits quick", ("digits", "--size", "32", *short)),
        Case("digits seed", ("digits", "--size", "32", "--recipe", "seed", *short)),
    ]
    flowers = shared / "data" / "flowers"
    if not flowers.is_dir():
        print(f"no {flowers}: digits only", flush=True)
        return found
    photos = work / "photos"
    archive = work / "photos.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for folder in sorted(path for path in flowers.iterdir() if path.is_dir()):
            for photo in sorted(folder.iterdir())[:PHOTOS]:
                target = photos / folder.name / photo.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(photo, target)
                packed.write(photo, f"{folder.name}/{photo.name}")
    weights = ("--weights", str(shared / "weights" / "mobilenetv2_100_imagenet.safetensors"))
    small = (*weights, "--size", "96", *short)
    return [
        *found,
        Case("photos quick", (str(photos), *small)),
        Case("photos seed", (str(photos), "--recipe", "seed", *small)),
        Case("photos full", (str(photos), "--recipe", "full-gpu", *small[:-2], "1", "2")),
        Case("zip quick", (str(archive), *small)),
        Case("compiled quick", (str(photos), *small, "--compile", "yes")),
    ]


class Attempt:
    """One process of `thawnet train` in a folder of its own."""

    def __init__(self, folder: Path, words: tuple[str, ...], cache: Path) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        environment = {
            **os.environ,
            "THAWNET_CACHE": str(cache),
            "THAWNET_KEEP_SECONDS": "0.2",
            "OMP_NUM_THREADS": "1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "thawnet", "train", *words],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.begun = time.monotonic()

    def wait_for(self, moment: Callable[[float], bool]) -> bool:
        """Return True when `moment`, given the seconds since the start, has come before the end."""
        while self.process.poll() is None:
            spent = time.monotonic() - self.begun
            if moment(spent):
                return True
            if spent > STUCK:
                return False
            time.sleep(0.001)
        return False

    @property
    def stage(self) -> str:
        """What was going on, by the last line that was printed."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1] if lines else ""
        found = re.match(r"phase \d, ([a-z-]+)|epoch +\d+ ([a-z-]+)", last)
        if found:
            return found[1] or found[2]
        if last.startswith("kept epoch"):
            return "after a phase"
        return "data" if last and not last.startswith("thawnet") else "start"


def moments(run: Path, cache: Path, seconds: float, chance: random.Random) -> tuple[str, Callable]:
    """Return a moment to kill at, and what it is called."""

    def appears(folder: Path, pattern: str) -> Callable[[float], bool]:
        nth = chance.randint(1, 6)
        seen: set[str] = set()

        def moment(_spent: float) -> bool:
            try:
                seen.update(str(path) for path in folder.glob(pattern))
            except OSError:
                return False
            return len(seen) >= nth

        return moment

    kinds: dict[str, Callable[[], Callable[[float], bool]]] = {
        "checkpoint": lambda: appears(run / "checkpoint", ".*.tmp"),
        "store": lambda: appears(cache / "stores", ".*.part/*"),
        "features": lambda: appears(cache / "features", ".*.part/*"),
        "archive": lambda: appears(cache / "archives", ".*.part/**/*"),
        "results": lambda: appears(run, "**/.*.tmp"),
    }
    if chance.random() < 0.5:
        after = chance.uniform(0, seconds)
        return "any time", lambda spent: spent >= after
    name = chance.choice(sorted(kinds))
    return name, kinds[name]()


def bits(run: Path) -> str:
    """Name the network and the predictions of a finished run."""
    digest = hashlib.sha256()
    for name, value in sorted(load_file(run / "bundle" / "model.safetensors").items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    digest.update((run / "predictions.csv").read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Reference:
    """What a case comes to when it is left alone, and in how many seconds."""

    case: Case
    bits: str
    seconds: float


def reference(case: Case, work: Path) -> Reference:
    """Do a case twice, on an empty and on a full cache; both must end with the same bits."""
    ends = []
    seconds = 0.0
    for number in range(2):
        folder = work / f"{case.name} alone {number}"
        folder.mkdir(parents=True)
        attempt = Attempt(folder, (*case.words, "--out", "run"), work / f"{case.name} cache")
        attempt.wait_for(lambda _spent: False)
        if attempt.process.returncode != 0:
            raise SystemExit(f"{case.name} fails when left alone:\n{attempt.log.read_text()}")
        seconds = seconds or time.monotonic() - attempt.begun
        ends.append(bits(folder / "run"))
    if ends[0] != ends[1]:
        raise SystemExit(f"{case.name}: {ends[0]} on an empty cache, {ends[1]} on a full one")
    print(f"{case.name}: {ends[0]} twice, {seconds:.0f} s undisturbed", flush=True)
    return Reference(case, ends[0], seconds)


def disturb(against: Reference, work: Path, chance: random.Random, kills: int) -> Tally:
    """Kill a run up to `kills` times, let it finish, and compare."""
    tally = Tally()
    folder = Path(tempfile.mkdtemp(prefix="run ", dir=work))
    run, cache = folder / "run", folder / "cache"
    told = []
    for _ in range(kills + 1):
        last = len(told) == kills
        begun = (run / "checkpoint" / "state.pt").exists()
        words = ("--resume", "run") if begun else (*against.case.words, "--out", "run")
        if not begun:
            shutil.rmtree(run, ignore_errors=True)
        attempt = Attempt(folder, words, cache)
        name, moment = moments(run, cache, against.seconds, chance)
        if attempt.wait_for((lambda _spent: False) if last else moment):
            number = chance.choice([signal.SIGKILL] * 4 + [signal.SIGTERM])
            tally.kills += 1
            stage = attempt.stage if name == "any time" else f"{name} being written"
            tally.stages[stage] += 1
            told.append(f"{stage} ({number.name})")
            attempt.process.send_signal(number)
            try:
                status = attempt.process.wait(STUCK)
            except subprocess.TimeoutExpired:
                break
            if number == signal.SIGTERM and status not in (0, 143, -signal.SIGTERM):
                tally.lost += 1
                print(f"LOST {against.case.name}: {told} ended with {status}", flush=True)
                print(attempt.log.read_text(), flush=True)
                return tally
            continue
        break
    if attempt.process.poll() is None:
        attempt.process.kill()
        tally.stuck += 1
        print(f"STUCK {against.case.name}\n{attempt.log.read_text()}", flush=True)
        return tally
    if attempt.process.returncode != 0:
        tally.lost += 1
        print(f"LOST {against.case.name}: {told}\n{attempt.log.read_text()}", flush=True)
        return tally
    found = bits(run)
    if found != against.bits:
        tally.different += 1
        print(f"DIFFERENT {against.case.name}: {told}, in {folder}", flush=True)
        return tally
    print(f"{against.case.name}: {found} after {', '.join(told) or 'no kill'}", flush=True)
    shutil.rmtree(folder)
    return tally


def soak(
    kills: int = 100,
    kills_per_run: int = 4,
    seed: int = 0,
    jobs: int = 2,
    shared: Path = Path("../shared"),
    only: str = "",
) -> int:
    """Kill until there were enough kills, and print what came of it.

    kills: at least so many; kills_per_run: at most so many of one run, before it is left to
    finish. seed: of the moments, as far as a clock lets them be repeated. jobs: runs at a time, of
    one thread each. shared: where data and weights lie; without it, digits only. only: cases whose
    name begins so.
    """
    total = Tally()
    lock = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="soak.", ignore_cleanup_errors=True) as place:
        work = Path(place)
        chosen = [case for case in cases(shared.resolve(), work) if case.name.startswith(only)]
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            references = list(pool.map(lambda case: reference(case, work), chosen))

            def keep_killing(job: int) -> None:
                chance = random.Random(f"{seed} {job}")
                number = job
                while total.kills < kills:
                    # In turn, so that every case has its share.
                    found = disturb(
                        references[number % len(references)], work, chance, kills_per_run
                    )
                    number += 1
                    with lock:
                        total.kills += found.kills
                        total.lost += found.lost
                        total.different += found.different
                        total.stuck += found.stuck
                        total.stages += found.stages

            list(pool.map(keep_killing, range(jobs)))
    for stage, count in sorted(total.stages.items()):
        print(f"{count:5d}  {stage}")
    print(
        f"{total.kills} kills, {total.lost} lost, {total.different} different, {total.stuck} stuck",
        flush=True,
    )
    return 1 if total.lost or total.different or total.stuck else 0


if __name__ == "__main__":
    sys.exit(tyro.cli(soak))
