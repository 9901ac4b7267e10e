"""Several processes for one run: the same count, a dead one is told, any number goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from support.awaiting import lines_of, wait_until
from support.runs import tiny_call
from support.systems import LINUX
from thawnet.core.errors import RankLostError, UsageError
from thawnet.recipe import Phase
from thawnet.training.loop import batches
from thawnet.training.ranks import ALONE, Ranks, World, join, losses_told

PLAIN = ("--compile", "no", "--precision", "float32")


def started(processes: int, *words: str) -> subprocess.Popen[str]:
    """Start `thawnet train` in this folder, one thread for each process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    ranks = ("--nproc-per-node", str(processes), "--master-port", port)
    starter = ("-m", "torch.distributed.run", *ranks) if processes > 1 else ()
    return subprocess.Popen(
        [sys.executable, *starter, "-m", "thawnet", "train", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def trained(processes: int, *words: str) -> str:
    """Train as `started` does, to a good end, and return what was printed on stdout."""
    job = started(processes, *words)
    out, errors = job.communicate(timeout=300)
    assert job.returncode == 0, errors
    return out


@pytest.fixture
def call(photos: Callable[..., Path], tiny_weights: Path) -> tuple[str, ...]:
    """Return the words of a run with 603 test images: three batches, the last of 103."""
    photos({"a": 60, "b": 60, "c": 60}, "data/train")
    folder = photos({"a": 201, "b": 201, "c": 201}, "data/test", start=1000).parent
    return (*PLAIN, *tiny_call(folder, tiny_weights, (1, 2)))


@pytest.mark.slow
def test_two_processes_count_the_same_hits_and_go_on_for_one_another(
    call: tuple[str, ...],
) -> None:
    trained(1, *call, "--out", "one")
    # All but the end once more, by two processes.
    shutil.copytree("one", "again")
    for name in ("result.json", "predictions.csv"):
        (Path("again") / name).unlink()
    state = Path("again/checkpoint/state.pt")
    content = torch.load(state, weights_only=True)
    torch.save(content | {"logits": {}}, state)
    shutil.rmtree("again/bundle")
    out = trained(2, "--resume", "again")
    assert len(out.splitlines()) == 4  # the first process alone prints
    assert Path("again/predictions.csv").read_bytes() == Path("one/predictions.csv").read_bytes()
    one, again = (json.loads(Path(name, "result.json").read_text()) for name in ("one", "again"))
    assert again["metrics"] == one["metrics"]
    assert again["baselines"] == one["baselines"]
    assert again["processes"] == 2
    assert again["different"] == ["it ran in 1 processes; these are 2"]


@pytest.mark.slow
def test_two_processes_train_and_cache_what_one_does(
    call: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained(1, *call, "--out", "one")
    monkeypatch.setenv("THAWNET_CACHE", str(tmp_path / "second"))
    trained(2, *call, "--out", "two")
    first = {path.name: path for path in (tmp_path / "cache" / "features").iterdir()}
    second = {path.name: path for path in (tmp_path / "second" / "features").iterdir()}
    assert set(first) == set(second)
    for name, path in first.items():
        assert (path / "values.bin").read_bytes() == (second[name] / "values.bin").read_bytes()
        assert sorted(entry.name for entry in second[name].iterdir()) == ["meta.json", "values.bin"]
    rows = [
        [json.loads(line) for line in Path(name, "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    # The head sees no batch statistics: the gradient is that of the whole batch, up to rounding.
    assert rows[1][0]["train_loss"] == pytest.approx(rows[0][0]["train_loss"], rel=1e-4)
    assert rows[1][0]["val_loss"] == pytest.approx(rows[0][0]["val_loss"], rel=1e-4)
    assert [row["epoch"] for row in rows[1]] == [1, 2, 3]
    # Three ranks, none of which gets a whole share, and the other way round.
    shutil.rmtree("two/bundle")
    Path("two/result.json").unlink()
    trained(3, "--resume", "two")
    one, other = (load_file(Path(name, "bundle/model.safetensors")) for name in ("one", "two"))
    assert one.keys() == other.keys()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@LINUX
def test_dead_process_ends_the_job_within_a_minute_and_is_told(
    call: tuple[str, ...], victim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAWNET_KEEP_SECONDS", "0.2")
    job = started(2, *call[:-1], "500", "--out", "run")
    wait_until(lambda: lines_of(Path("run/log.jsonl")) >= 3, 120)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    (rank,) = (
        child
        for child in children
        if f"\0RANK={victim}" in Path(f"/proc/{child}/environ").read_text()
    )
    os.kill(int(rank), signal.SIGKILL)
    killed = time.monotonic()
    _, errors = job.communicate(timeout=90)
    assert time.monotonic() - killed < 60
    assert job.returncode != 0
    lines = [line for line in errors.splitlines() if line.startswith("thawnet")]
    assert any("--resume run" in line for line in lines), errors
    assert "thawnet/training" not in errors  # no traceback of ours


def test_batch_is_shared_whole_and_in_order() -> None:
    positions = np.arange(11)
    shares = [Ranks(rank, 3).own(positions) for rank in range(3)]
    assert np.array_equal(np.concatenate(shares), positions)
    assert [len(share) for share in shares] == [4, 4, 3]


def test_no_rank_is_left_with_a_single_image() -> None:
    phase = Phase(train_from="head", epochs=1, lr=0.1, batch_size=10, drop_last=False)
    assert len(batches(23, phase, [1], 1)[-1]) == 3
    assert len(batches(23, phase, [1], 2)) == 2


def test_one_process_is_alone_and_a_half_told_world_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert join() is ALONE
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match=r"WORLD_SIZE=2 .* 'RANK' is missing or wrong; start them"):
        join()


def test_lost_rank_is_one_sentence_also_behind_a_stop() -> None:
    world = World(Ranks(0, 2), Ranks(0, 2))

    def lose() -> None:
        with losses_told(world, Path("run")):
            try:
                raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer")
            finally:
                raise KeyboardInterrupt

    with pytest.raises(RankLostError, match=r"another of the 2 processes is gone; .*--resume run"):
        lose()
    with pytest.raises(RuntimeError, match="another matter"), losses_told(world):
        raise RuntimeError("another matter")
