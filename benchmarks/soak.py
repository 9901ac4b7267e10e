"""Kill training at random moments, resume it, and compare the bits with an undisturbed run's.

    make soak                                  # or: python benchmarks/soak.py --kills 100

Each case is a small run on real images. It is done twice undisturbed, once on an empty cache and
once on a full one, and then repeatedly on an empty cache: killed up to --kills-per-run times,
resumed each time, and left to finish. Every tensor of the network and every prediction must be
equal. A kill comes after a random time, or while a file of some kind is being written. Prints a
line per run, and at the end the number of kills and how many runs were lost (a resume failed),
different (other bits) or stuck (did not end).
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import random
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from safetensors.numpy import load_file

STUCK = 300.0  # seconds after which a process counts as stuck
PHOTOS = 40  # of each class of flowers

Moment = Callable[[float], bool]  # from the seconds since a process began, whether it has come


def cases(shared: Path, work: Path) -> dict[str, tuple[str, ...]]:
    """Return the cases that the available data allows: arguments of `thawnet train`, by name."""
    short = ("--compile", "no", "--epochs", "2", "3")  # the last --compile wins
    digits: dict[str, tuple[str, ...]] = {
        "digits quick": ("digits", "--size", "32", *short),
        "digits seed": ("digits", "--size", "32", "--recipe", "seed", *short),
    }
    flowers = shared / "data" / "flowers"
    if not flowers.is_dir():
        print(f"no {flowers}: digits only", flush=True)
        return digits
    photos, archive = work / "photos", work / "photos.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for folder in sorted(path for path in flowers.iterdir() if path.is_dir()):
            (photos / folder.name).mkdir(parents=True)
            for photo in sorted(folder.iterdir())[:PHOTOS]:
                shutil.copyfile(photo, photos / folder.name / photo.name)
                packed.write(photo, f"{folder.name}/{photo.name}")
    weights = ("--weights", str(shared / "weights" / "mobilenetv2_100_imagenet.safetensors"))
    small = (*weights, "--size", "96", *short)
    return {
        **digits,
        "photos quick": (str(photos), *small),
        "photos seed": (str(photos), "--recipe", "seed", *small),
        "photos full": (str(photos), "--recipe", "full-gpu", *small[:-2], "1", "2"),
        "zip quick": (str(archive), *small),
        "compiled quick": (str(photos), *small, "--compile", "yes"),
    }


class Attempt:
    """One process of `thawnet train` in a folder of its own."""

    def __init__(self, folder: Path, words: tuple[str, ...], cache: Path) -> None:
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

    def wait_for(self, moment: Moment) -> bool:
        """Wait for a moment; return whether it came before the process ended or got stuck."""
        while self.process.poll() is None:
            spent = time.monotonic() - self.begun
            if moment(spent):
                return True
            if spent > STUCK:
                return False
            time.sleep(0.001)
        return False


def never(_seconds: float) -> bool:
    """Return False: the run is left alone."""
    return False


def random_moment(
    run: Path, cache: Path, seconds: float, chance: random.Random
) -> tuple[str, Moment]:
    """Return the name of a random moment to kill at, and the moment."""
    if chance.random() < 0.5:
        after = chance.uniform(0, seconds)
        return "any time", lambda spent: spent >= after
    name, folder, pattern = chance.choice(
        [
            ("checkpoint being written", run / "checkpoint", ".*.tmp"),
            ("store being written", cache / "stores", ".*.part/*"),
            ("features being written", cache / "features", ".*.part/*"),
            ("archive being written", cache / "archives", ".*.part/**/*"),
            ("results being written", run, "**/.*.tmp"),
        ]
    )
    nth = chance.randint(1, 6)
    seen: set[Path] = set()

    def moment(_spent: float) -> bool:
        try:
            seen.update(folder.glob(pattern))
        except OSError:
            return False
        return len(seen) >= nth

    return name, moment


def bits(run: Path) -> str:
    """Return a hash of the network and the predictions of a finished run."""
    digest = hashlib.sha256()
    for name, value in sorted(load_file(run / "bundle" / "model.safetensors").items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    digest.update((run / "predictions.csv").read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Reference:
    """An undisturbed case: its bits, and the seconds it took."""

    name: str
    words: tuple[str, ...]
    bits: str
    seconds: float


def reference(name: str, words: tuple[str, ...], work: Path) -> Reference:
    """Run a case twice, on an empty and on a full cache; both must end with the same bits."""
    ends, seconds = [], []
    for number in range(2):
        folder = work / f"{name} alone {number}"
        folder.mkdir(parents=True)
        attempt = Attempt(folder, (*words, "--out", "run"), work / f"{name} cache")
        attempt.wait_for(never)
        if attempt.process.returncode != 0:
            raise SystemExit(f"{name} fails when left alone:\n{attempt.log.read_text()}")
        seconds.append(time.monotonic() - attempt.begun)
        ends.append(bits(folder / "run"))
    if ends[0] != ends[1]:
        raise SystemExit(f"{name}: {ends[0]} on an empty cache, {ends[1]} on a full one")
    print(f"{name}: {ends[0]} twice, {seconds[0]:.0f} s undisturbed", flush=True)
    return Reference(name, words, ends[0], seconds[0])


def disturb(
    case: Reference, work: Path, chance: random.Random, most: int
) -> tuple[list[str], str | None]:
    """Kill a run up to `most` times, let it finish, and compare.

    Returns the moment of each kill, and 'lost', 'different', 'stuck' or None.
    """
    folder = Path(tempfile.mkdtemp(prefix="run ", dir=work))
    run, cache = folder / "run", folder / "cache"
    kills: list[str] = []
    status: int | None = None
    while True:
        words = ("--resume", "run")
        if not (run / "checkpoint" / "state.pt").exists():
            shutil.rmtree(run, ignore_errors=True)
            words = (*case.words, "--out", "run")
        attempt = Attempt(folder, words, cache)
        name, moment = random_moment(run, cache, case.seconds, chance)
        if not attempt.wait_for(moment if len(kills) < most else never):
            status = attempt.process.poll()
            break
        number = chance.choice([signal.SIGKILL] * 4 + [signal.SIGTERM])
        kills.append(name)
        attempt.process.send_signal(number)
        try:
            status = attempt.process.wait(STUCK)
        except subprocess.TimeoutExpired:
            status = None
            break
        if number == signal.SIGTERM and status not in (0, 143, -signal.SIGTERM):
            break
    outcome = None
    if status is None:
        attempt.process.kill()
        outcome = "stuck"
    elif status != 0:
        outcome = "lost"
    elif (end := bits(run)) != case.bits:
        outcome = "different"
    if outcome:
        print(f"{outcome.upper()} {case.name}: {kills}, in {folder}", flush=True)
        print(attempt.log.read_text(), flush=True)
    else:
        print(f"{case.name}: {end} after {', '.join(kills) or 'no kill'}", flush=True)
        shutil.rmtree(folder)
    return kills, outcome


def soak(
    kills: int = 100,
    kills_per_run: int = 4,
    seed: int = 0,
    jobs: int = 2,
    shared: Path = Path("../shared"),
    only: str = "",
) -> int:
    """Kill runs until there were enough kills, and print the outcome.

    kills: the least number in all. kills_per_run: the most for one run before it is left to finish.
    seed: of the moments, which the clock makes only partly repeatable. jobs: runs at a time, of one
    thread each. shared: the folder of data and weights; without it, digits only. only: run the
    cases whose name begins with this.
    """
    struck: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="soak.", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        chosen = {
            name: words
            for name, words in cases(shared.resolve(), work).items()
            if name.startswith(only)
        }
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            references = list(pool.map(lambda name: reference(name, chosen[name], work), chosen))

            def keep_killing(job: int) -> None:
                chance = random.Random(f"{seed} {job}")
                number = job
                while struck.total() < kills:
                    # In turn, so that every case has its share.
                    case = references[number % len(references)]
                    killed, outcome = disturb(case, work, chance, kills_per_run)
                    number += 1
                    with lock:
                        struck.update(killed)
                        outcomes.update([outcome] if outcome else [])

            list(pool.map(keep_killing, range(jobs)))
    for name, count in sorted(struck.items()):
        print(f"{count:5d}  {name}")
    failures = ", ".join(f"{outcomes[name]} {name}" for name in ("lost", "different", "stuck"))
    print(f"{struck.total()} kills, {failures}", flush=True)
    return 1 if outcomes else 0


if __name__ == "__main__":
    sys.exit(tyro.cli(soak))
