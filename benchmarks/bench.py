"""Measure thawnet beside what a user would run instead, and write RESULTS.md and a picture.

    make bench                     # every row: about four hours on 2 cores
    make bench ROW=trunk           # one row, or several: ROW="trunk share"
    make bench-gpu ROW=quick-0     # a row on a GPU
    make bench BENCH_FLAGS=--rehearse

A row that this checkout has done from the same src is not done again, unless it is named.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import tyro

import gpu
import records
import report
import rows
from rows import Row
from scale import write_shards
from trials import ROOT, TrialFailed, sweep
from workbench import REHEARSAL, WHOLE, Bench, say

BUILD = ROOT / "build" / "bench"
REHEARSED = BUILD / "rehearsal"


def bench(
    names: Annotated[tuple[str, ...], tyro.conf.arg(name="rows")] = (),
    on_gpu: Annotated[bool, tyro.conf.arg(name="gpu")] = False,
    rehearse: bool = False,
    shared: Path = Path("../shared"),
    data_dir: Path | None = None,
    weights: Path | None = None,
) -> int:
    """Measure rows, and write what came of them.

    names: the rows to do, all if none is named. on_gpu: those of the GPU table. rehearse: next to
    nothing of each, on whatever device there is, written under build/bench. shared: holds
    data/cifar100 and weights; data_dir, weights: where they lie otherwise.
    """
    kind = "gpu" if on_gpu else "cpu"
    if not on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for every process of every rival
    chosen = choose(gpu.ROWS if on_gpu else rows.ROWS, names)
    if on_gpu and not rehearse and not torch.cuda.is_available():
        raise SystemExit("bench: torch sees no CUDA device here, which the GPU table is for")
    data = _found(data_dir or shared / "data" / "cifar100")
    file = _found(weights or shared / "weights" / "mobilenetv2_100_imagenet.safetensors")
    if rehearse:
        shutil.rmtree(REHEARSED, ignore_errors=True)
        work, target, sizes = REHEARSED / "work", REHEARSED, REHEARSAL
        write_shards(data, work / "cifar100", sizes.images, sizes.held_out)
        data = work / "cifar100"
    else:
        work, target, sizes = BUILD / "work", ROOT / "benchmarks", WHOLE
        sweep(work)
    finished = records.Finished((REHEARSED if rehearse else BUILD) / "finished.json")
    todo = []
    for row in chosen:
        if not names and finished.holds(f"{kind}/{row.name}", row.depends):
            say(f"{row.name}: reused, this checkout did it from the same {row.depends}")
        else:
            todo.append(row)
    for row in todo:
        say(f"{row.name}: {row.what}, about {row.minutes:.0f} min")
    say(f"{len(todo)} rows, about {sum(row.minutes for row in todo) / 60:.1f} h")
    failed = []
    for row in todo:
        record = records.circumstances(row.depends)
        here = Bench(data, file, work, sizes)
        try:
            figures = row.do(here)
        except TrialFailed as error:
            say(f"{row.name}: {error}")
            failed.append(row.name)
            continue
        record |= {"settings": asdict(sizes), "commands": here.commands, "figures": figures}
        records.keep(target / "results", kind, row.name, record)
        finished.add(f"{kind}/{row.name}", record["source"])
        report.write(target)
    report.write(target)
    say("\n" + report.tables(records.load(target / "results"), [kind]))
    say(f"written: {os.path.relpath(target / 'RESULTS.md')}")
    if failed:
        say(f"not measured, for the reasons above: {', '.join(failed)}")
    return 1 if failed else 0


def choose(known: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Return the rows that are named, or all but those done only when they are."""
    there = {row.name: row for row in known}
    for name in names:
        if name not in there:
            raise SystemExit(f"bench: no row '{name}'; there are {', '.join(there)}")
    return [there[name] for name in names] or [row for row in known if not row.asked]


def _found(path: Path) -> Path:
    if not path.exists():
        raise SystemExit(f"bench: '{path}' is not there; say where it lies with SHARED=FOLDER")
    return path.resolve()


if __name__ == "__main__":
    # So that what runs for a row is ended with it.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        sys.exit(tyro.cli(bench))
    except KeyboardInterrupt:
        sys.stderr.write("bench: stopped; the rows that are done are kept\n")
        sys.exit(128 + signal.SIGINT)
