"""A run that is stopped goes on where it was, does little twice, and never pretends."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.runs import tensors_of, under
from support.systems import POSIX
from thawnet.core.cache import PART, building
from thawnet.core.errors import RunError
from thawnet.core.files import cache_folder
from thawnet.data.augment import Augment
from thawnet.data.sources.open import open_source
from thawnet.data.store import open_store
from thawnet.image.preprocess import Preprocess, Reduction
from thawnet.model.backbone import Network
from thawnet.recipe import TrainOptions
from thawnet.training import checkpoint, machine, run, setup
from thawnet.training.checkpoint import Keeper, RunState
from thawnet.training.loop import evaluate
from thawnet.training.ranks import ALONE
from thawnet.training.trunk import cache


def silent(done: int) -> None:
    pass


@pytest.fixture
def begun(options: TrainOptions) -> Path:
    """Return the folder of a run that has not taken a step yet."""
    with ExitStack() as held:
        return setup.setup(options, ALONE, held).folder


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# --- where it cannot go on as it was ------------------------------------------------------------


@contextmanager
def changed(folder: Path) -> Iterator[RunState]:
    """Let a block change what a run has saved."""
    state = checkpoint.load(folder)
    yield state
    checkpoint.save(state, folder)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(RunError, match=message):
        run.train(TrainOptions(resume=str(folder)))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("chip", "another one", "it ran on another one; this is "),
        ("device", "cuda", "it ran on cuda, which is not here"),
    ],
)
def test_other_machine_is_refused_unless_other_bits_are_allowed(
    begun: Path, name: str, value: str, message: str
) -> None:
    if name == "device" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with changed(begun) as state:
        state.machine = dataclasses.replace(state.machine, **{name: value})
    refused(begun, rf"{message}.*--allow-different")
    outcome = run.train(TrainOptions(resume=str(begun), allow_different=True))
    assert any(line.startswith(message) for line in outcome.result.different)


def test_bfloat16_a_compiler_and_versions_that_are_gone_are_refused(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with changed(begun) as state:
        state.versions["torch"] = "1.0"
    refused(begun, r"it ran with torch 1\.0; this is 2")
    with changed(begun) as state:
        state.machine = dataclasses.replace(state.machine, dtype="bfloat16")
        state.compiled = [False, True]
    monkeypatch.setattr(machine, "_fast_bfloat16", lambda device: False)
    monkeypatch.setattr(machine, "_can_compile", lambda device: False)
    refused(begun, r"bfloat16, which this processor lacks; it was compiled")


def test_run_keeps_its_number_of_threads(begun: Path) -> None:
    with changed(begun) as state:
        state.machine = dataclasses.replace(state.machine, threads=1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        outcome = run.train(TrainOptions(resume=str(begun)))
        assert torch.get_num_threads() == 2  # as before; the run itself had one
    finally:
        torch.set_num_threads(before)
    assert outcome.result.machine["threads"] == 1
    assert outcome.result.different == ()


def test_data_that_changed_and_features_that_no_longer_fit_are_refused(
    begun: Path, options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with changed(begun) as state:
        state.cached["head, train"] = True
    with monkeypatch.context() as patch:
        patch.setenv("THAWNET_CACHE_GB", "0")
        refused(begun, "no longer fit the disk budget")
    for number in range(12):  # some of them test, and count for nothing here
        (Path(options.data) / "a" / f"{number:03d}.png").unlink()
    refused(begun, "the data is not what this run began with")


def test_checkpoint_of_another_version_is_refused(begun: Path) -> None:
    path = begun / "checkpoint" / "state.pt"
    torch.save({**torch.load(path, weights_only=True), "version": 1}, path)
    refused(begun, r"is of version 1; this thawnet reads \d")


# --- the same bits -------------------------------------------------------------------------------


def test_bits_do_not_depend_on_what_is_cached_already(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = tensors_of(run.train(options))
    monkeypatch.setenv("THAWNET_CACHE", str(tmp_path / "other"))
    run.train(under(options, "seed"))
    assert equal(alone, tensors_of(run.train(options)))  # beside what another recipe left
    entries = sorted((cache_folder() / "features").iterdir())
    for entry in entries[::2]:
        shutil.rmtree(entry)
    assert equal(alone, tensors_of(run.train(options)))  # some there, some not


# --- little is done twice ------------------------------------------------------------------------


@pytest.fixture
def origin(photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> cache.Origin:
    monkeypatch.setattr(cache, "block_size", lambda _origin: 4)
    source = open_source(str(photos({"a": 13, "b": 13})))
    store = open_store(source.open_part("train"), Reduction(40), silent, 1)
    torch.manual_seed(0)
    return cache.Origin(
        network=Network("mobilenetv2_100", 2, 32, "same"),
        weights="random",
        images=store,
        spec=Preprocess(32, 40, (0.5,) * 3, (0.5,) * 3),
        augment=Augment(flip=True, rotate=10.0),
        machine=machine.Machine("cpu", "float32", torch.get_num_threads(), "no"),
    )


def test_features_go_on_from_the_last_block_that_was_kept(
    origin: cache.Origin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    splits = [8, 18]
    whole = cache.cached_features(origin, 2, splits, silent)
    monkeypatch.setenv("THAWNET_CACHE", str(tmp_path / "second"))
    monkeypatch.setenv("THAWNET_KEEP_SECONDS", "0")
    begun: list[int] = []

    class Killed(BaseException):
        """Like SIGKILL: nobody tidies up."""

    def dies(done: int) -> None:
        begun.append(done)
        if len(begun) == 5:  # the first call tells of what is there, none
            raise Killed

    with pytest.raises(Killed):
        cache.cached_features(origin, 2, splits, dies)
    parts = list((cache_folder() / "features").glob(f".*{PART}"))
    assert len(parts) == 2
    counts: list[int] = []
    again = cache.cached_features(origin, 2, splits, counts.append)
    assert sum(counts[1:]) == 26 - 12  # three blocks of four were kept
    for one, other in zip(whole, again, strict=True):
        assert np.array_equal(one.values, other.values)
    assert not list((cache_folder() / "features").glob(".*"))


def test_features_that_another_process_is_building_are_waited_for_and_taken(
    origin: cache.Origin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = cache.cached_features(origin, 0, [8], silent)
    path = origin.folder(0, 8)
    finished = shutil.move(path, tmp_path / "finished")
    holds, go_on = threading.Event(), threading.Event()

    def other() -> None:
        with building(path, lambda text: None) as work:
            assert work is not None
            holds.set()
            go_on.wait()
            shutil.copytree(finished, work.folder, dirs_exist_ok=True)

    lines: list[str] = []

    def waits(text: str) -> None:
        lines.append(text)
        go_on.set()

    monkeypatch.setattr(cache.console, "say", waits)
    monkeypatch.setattr(cache.Origin, "pictures", None)  # whoever computes fails
    thread = threading.Thread(target=other)
    thread.start()
    holds.wait()
    features = cache.cached_features(origin, 0, [8], silent)
    thread.join()
    assert np.array_equal(features[0].values, whole[0].values)
    assert len(lines) == 1
    assert "another process is building" in lines[0]


def test_evaluation_goes_on_from_the_logits_that_were_kept() -> None:
    torch.manual_seed(0)
    inputs, labels = torch.randn(50, 4), np.arange(50) % 3
    net = torch.nn.Linear(4, 3)
    sizes: list[int] = []

    def logits_of(positions: Any) -> torch.Tensor:
        sizes.append(len(positions))
        return net(inputs[torch.from_numpy(positions)])

    pieces: list[Any] = []
    whole, logits = evaluate(
        logits_of, labels, 8, silent, between=lambda so_far: pieces.append(so_far[:])
    )
    assert len(sizes) == 7
    sizes.clear()
    logits_so_far = np.concatenate(pieces[3])
    again, same = evaluate(logits_of, labels, 8, silent, done=logits_so_far)
    assert sizes == [8, 8, 2]
    assert np.array_equal(logits, same)
    assert again == whole


# --- a stop waits for the end of a step ----------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@POSIX
def test_stop_is_kept_between_two_steps_and_a_second_one_acts_at_once(
    begun: Path, number: signal.Signals
) -> None:
    def act(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(number, act)
    keeper = Keeper(checkpoint.load(begun), begun)
    steps = []

    def train() -> None:
        with keeper.stopping_between_steps():
            for step in range(5):
                if step == 2:
                    os.kill(os.getpid(), number)
                steps.append(step)
                keeper.state.step = step + 1
                if keeper.due:
                    keeper.save()

    with pytest.raises(KeyboardInterrupt):
        train()
    assert steps == [0, 1, 2]
    assert checkpoint.load(begun).step == 3
    assert signal.getsignal(number) is act

    def impatient() -> None:
        with Keeper(checkpoint.load(begun), begun).stopping_between_steps():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            steps.append(-1)

    def between_epochs() -> None:
        keeper = Keeper(checkpoint.load(begun), begun)
        with keeper.stopping_between_steps(), keeper.stopping_at_once():
            os.kill(os.getpid(), number)
            steps.append(-1)

    for stopped_at_once in (impatient, between_epochs):
        with pytest.raises(KeyboardInterrupt):
            stopped_at_once()
    assert steps == [0, 1, 2]  # no one went on


def test_seconds_of_earlier_processes_count(begun: Path) -> None:
    state = checkpoint.load(begun)
    state.seconds["in all"] = 100.0
    Keeper(state, begun, time.perf_counter() - 5).clock()
    assert state.seconds["in all"] == pytest.approx(105, abs=1)


def test_leftovers_of_a_killed_writer_are_removed_when_a_run_goes_on(begun: Path) -> None:
    leftover = begun / "checkpoint" / ".state.pt.abc.tmp"
    leftover.write_bytes(b"half")
    (begun / ".bundle.abc.tmp").mkdir()
    run.train(TrainOptions(resume=str(begun)))
    assert not leftover.exists()
    assert not list(begun.glob(".*"))
    assert json.loads((begun / "result.json").read_text())["different"] == []
