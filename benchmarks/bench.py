"""Measure thawnet and what a user would run instead, and write RESULTS.md and a picture.

    make bench                     # every row: about nine hours on 2 cores
    make bench ROW=trunk           # one row, or several: ROW="trunk share"
    make bench-gpu ROW=full-0      # a row on a GPU
    make bench-gpu BENCH_FLAGS="--seconds 700"   # what fits into the time, the most valuable first
    make bench BENCH_FLAGS=--rehearse

A row that this machine has measured from the same source is skipped, unless it is named.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

import page
from inputs import write_shards
from rows import KINDS, Row
from runs import ROOT, Bench, RunFailed, emptied
from thawnet.core.files import write_json
from thawnet.core.memory import available_cores
from thawnet.training.machine import describe, version

BUILD = ROOT / "build" / "bench"
REHEARSAL = BUILD / "rehearsal"
PACKAGES = ("torch", "timm", "onnxruntime", "tensorflow", "keras", "numpy")


def bench(
    names: Annotated[tuple[str, ...], tyro.conf.arg(name="rows")] = (),
    on_gpu: Annotated[bool, tyro.conf.arg(name="gpu")] = False,
    rehearse: bool = False,
    seconds: int | None = None,
    shared: Path = Path("../shared"),
) -> int:
    """Measure rows and write the results.

    names: the rows to measure; all if none is named. on_gpu: take the rows of the GPU table.
    rehearse: do a minimum of each row, on any device, and write it under build/bench. seconds: end
    after so long; a row that would take longer than what is left is not begun, and one that does is
    given up. Another call goes on with what is missing. shared: the folder of data/cifar100 and
    weights.
    """
    kind = "gpu" if on_gpu else "cpu"
    if not on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for the rivals' processes too
    rows = choose(KINDS[kind], names)
    if on_gpu and not rehearse and not torch.cuda.is_available():
        raise SystemExit("bench: torch sees no CUDA device here, which the GPU table is for")
    photos = shared.resolve() / "data"
    data = photos / "cifar100"
    weights = shared.resolve() / "weights" / "mobilenetv2_100_imagenet.safetensors"
    for path in (data, weights):
        if not path.exists():
            raise SystemExit(f"bench: '{path}' is not there; say where it lies with SHARED=FOLDER")
    target = ROOT / "benchmarks"
    if rehearse:
        target = REHEARSAL
        shutil.rmtree(target, ignore_errors=True)
        write_shards(data, target / "cifar100", 640, 320)
        data = target / "cifar100"
    if not names:
        done = page.load(target, kind)
        rows = [row for row in rows if not is_done(row, done.get(row.name))]
    for row in rows:
        print(f"{row.name}: {row.title}, about {row.minutes:.0f} min")
    print(f"{len(rows)} rows, about {sum(row.minutes for row in rows) / 60:.1f} h")
    # A GPU may be at hand for minutes only.
    kept = (REHEARSAL if rehearse else BUILD) / "kept" if on_gpu else None
    if seconds is not None:
        signal.signal(signal.SIGALRM, _time_is_up)
        signal.alarm(seconds)
    missing: list[str] = []
    for number, row in enumerate(rows, start=1):
        left = signal.getitimer(signal.ITIMER_REAL)[0]
        if seconds is not None and left <= (0 if rehearse else 60 * row.minutes):
            missing.append(f"{row.name}, for which {left:.0f} s are too few")
            continue
        print(f"{number}/{len(rows)} {row.name}")
        try:
            here = Bench(data, photos, weights, BUILD / "scratch", rehearse, kept)
            measure(row, here, target / "results" / kind)
            page.write(target)
        except RunFailed as error:
            missing.append(f"{row.name}: {error}")
            print(missing[-1])
    signal.alarm(0)
    page.write(target)
    print("\n" + page.table(kind, page.load(target, kind)))
    print(f"written: {os.path.relpath(target / 'RESULTS.md')}")
    for line in missing:
        print(f"not measured: {line.splitlines()[0]}")
    return 1 if missing else 0


def _time_is_up(_number: int, _frame: object) -> None:
    raise RunFailed("the time is up")


def measure(row: Row, bench: Bench, results: Path) -> None:
    """Measure a row and write its record into a folder."""
    record = circumstances(row)
    with emptied(bench.scratch):
        figures = row.measure(bench)
    write_json(
        results / f"{row.name}.json", record | {"commands": bench.commands, "figures": figures}
    )


def choose(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Return the named rows, or all if none is named."""
    by_name = {row.name: row for row in rows}
    for name in names:
        if name not in by_name:
            raise SystemExit(f"bench: no row '{name}'; there are {', '.join(by_name)}")
    return [by_name[name] for name in names] or list(rows)


def is_done(row: Row, record: dict[str, Any] | None) -> bool:
    """Return whether a row's record is from this machine, its versions and the current source."""
    if record is None:
        return False
    now = circumstances(row)
    return all(record[name] == now[name] for name in ("source", "machine", "versions"))


def circumstances(row: Row) -> dict[str, Any]:
    """Return the date, source, machine and versions of a row that begins now."""
    versions = {name: version(name) for name in PACKAGES}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(row.source),
        "source": source(ROOT / row.source),
        "machine": {**describe(), "cores": available_cores()},
        "versions": {name: number for name, number in versions.items() if number},
    }


def commit(folder: str) -> str | None:
    """Return the checkout's commit, and whether a folder differs from it; None without git."""
    name, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain", folder)
    return f"{name}, with changes that are not committed" if name and changed else name


def source(folder: Path) -> str:
    """Return a hash of the Python and TOML files below a folder, committed or not."""
    read = hashlib.sha256()
    for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.toml")]):
        read.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return read.hexdigest()[:12]


def git(*words: str) -> str | None:
    """Return git's output for this checkout, None if git fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


if __name__ == "__main__":
    # So that a row's processes end with this one.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        sys.exit(tyro.cli(bench))
    except KeyboardInterrupt:
        sys.stderr.write("bench: stopped; the rows that are done are kept\n")
        sys.exit(128 + signal.SIGINT)
