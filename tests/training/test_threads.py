"""Trainings in threads of one process: each as if alone, and the process is left as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import thawnet
from support.photos import draw
from support.runs import TINY
from thawnet.model.chain import trace
from thawnet.training import run
from thawnet.training.run import own_turn

X = np.stack([np.asarray(draw(label, number, (12, 12))) for label in (0, 1) for number in range(8)])
Y = np.repeat([0, 1], 8)


@contextmanager
def beside(job: Callable[[], object]) -> Iterator[None]:
    """Do a job in another thread while the block runs; raise here what it raised there."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(120)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


def fit(weights: Path, seed: int, verbose: bool = False) -> Any:
    options: dict[str, Any] = {"backbone": TINY, "weights": weights, "size": 32}
    options["precision"] = "float32"
    model = thawnet.Classifier(**options, epochs=(1, 1), random_state=seed, verbose=verbose)
    return model.fit(X, Y).predict_proba(X)


def test_trainings_in_two_threads_give_what_each_gives_alone(
    tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = [fit(tiny_weights, seed) for seed in (1, 2)]
    together: list[Any] = [None, None]
    begin = threading.Barrier(2)

    def one(number: int) -> None:
        begin.wait()
        together[number] = fit(tiny_weights, number + 1, verbose=number == 0)

    with beside(lambda: one(1)):
        one(0)
    assert (alone[0] != alone[1]).any()
    for answers, expected in zip(together, alone, strict=True):
        assert (answers == expected).all()
    # One is quiet and the other is not, whichever was first.
    err = capfd.readouterr().err
    assert err.count("phase 2, fine-tune") == 1
    assert err.count("run folder") == 1


def test_a_training_waits_for_the_other_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    waiting = threading.Event()
    monkeypatch.setattr(run.console, "say", lambda text: (order.append(text), waiting.set()))

    @own_turn()
    def second() -> None:
        order.append("second")

    @own_turn()
    def first(thread: threading.Thread) -> None:
        thread.start()
        assert waiting.wait(60)
        order.append("first")

    thread = threading.Thread(target=second)
    first(thread)
    thread.join(60)
    second()
    message = "another thread of this process is training; waiting for it"
    assert order == [message, "first", "second", "second"]


def test_what_a_training_sets_for_the_process_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before, random = torch.get_num_threads(), torch.get_rng_state()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)

    @own_turn()
    def fail() -> None:
        torch.set_num_threads(before + 1)
        torch.backends.cudnn.allow_tf32 = False
        torch.manual_seed(5)
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert torch.get_num_threads() == before
    assert torch.backends.cudnn.allow_tf32
    assert torch.equal(torch.get_rng_state(), random)


def test_another_thread_computes_while_a_network_is_traced() -> None:
    other = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.GELU()).eval()
    computed: list[torch.Tensor] = []

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with beside(lambda: computed.append(other(torch.ones(2, 3)))):
                pass
            return self.fc(self.body(x).relu())  # type: ignore[no-any-return]

    chain = trace(Net(), "fc", 8)
    assert [stage.name for stage in chain.stages][-1] == "head"
    assert torch.equal(computed[0], other(torch.ones(2, 3)))
