"""Worker processes answer as the model does, and one that ends is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support.awaiting import awaited
from support.service import picture
from support.systems import POSIX
from thawnet.bundle.model import Model
from thawnet.core.errors import ImageError
from thawnet.serve.workers import Worker, WorkerLostError


def pid_of_worker() -> int:
    (process,) = multiprocessing.active_children()
    assert process.pid is not None
    return process.pid


def run(model: Model, job: Callable[[Worker], Awaitable[None]]) -> None:
    """Do a job with a worker."""

    async def whole() -> None:
        worker = Worker(model)
        async with worker.running():
            await job(worker)

    awaited(whole())
    assert not multiprocessing.active_children()


def test_worker_answers_as_the_model_does_and_in_order(model: Model) -> None:
    async def job(worker: Worker) -> None:
        images = [picture("red"), b"broken", picture("blue", (70, 20))]
        expected = model.predict_batch(images, 2)
        first, second = await asyncio.gather(
            worker.predict(images, 2, False), worker.predict(images[2:], 2, False)
        )
        assert [first[0], first[2]] == [expected[0], expected[2]]
        assert str(first[1]) == str(expected[1])
        assert second == expected[2:]

    run(model, job)


@POSIX
def test_one_that_ends_is_told_logged_once_and_replaced(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    async def job(worker: Worker) -> None:
        await worker.predict([picture("red")], 1, False)
        before = pid_of_worker()
        os.kill(before, signal.SIGSTOP)  # so that it does not answer first
        tasks = [asyncio.create_task(worker.predict([picture("red")], 1, False)) for _ in range(3)]
        await asyncio.sleep(0.1)
        os.kill(before, signal.SIGKILL)
        lost = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(error, WorkerLostError) and error.begun for error in lost] == [
            *(True, False, False)  # it was at the first alone
        ]
        assert not worker.ready.is_set()
        (answer,) = await worker.predict([picture("red")], 1, False)  # by the other one
        assert not isinstance(answer, ImageError)
        assert pid_of_worker() != before
        (line,) = caplog.messages
        assert "another one is started" in line

    run(model, job)


class EndsOnce:
    """What ends the process that unpickles it, unless a file exists."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return _end_once, (self.file,)


def _end_once(file: Path) -> None:
    if not file.exists():
        file.touch()
        os._exit(9)


class Slippery(Model):
    """A network that the first process does not read to its end."""

    file: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (EndsOnce(self.file), *self._made_of)


def _opened(_ended: None, *made_of: Any) -> Model:
    return Model(*made_of)


def test_one_that_ends_while_it_starts_is_replaced(model: Model, tmp_path: Path) -> None:
    slippery = Slippery(*model._made_of)
    slippery.file = tmp_path / "ended"

    async def job(worker: Worker) -> None:
        while not slippery.file.exists():
            await asyncio.sleep(0.01)
        with contextlib.suppress(WorkerLostError):
            await worker.predict([picture("red")], 1, False)
        assert await worker.predict([picture("red")], 1, False)

    # A fault here blocks for ever, and asyncio's own timeouts with it.
    thread = threading.Thread(target=run, args=(slippery, job), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_failure_inside_is_told_and_the_next_is_answered(model: Model) -> None:
    async def job(worker: Worker) -> None:
        with pytest.raises(RuntimeError, match="TypeError"):
            await worker.predict([picture("red")], "all", False)  # type: ignore[arg-type]
        assert await worker.predict([picture("red")], 1, False)

    run(model, job)


@POSIX
def test_ctrl_c_for_all_leaves_it_to_its_parent(model: Model) -> None:
    async def job(worker: Worker) -> None:
        await worker.predict([picture("red")], 1, False)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid_of_worker(), number)
        assert await worker.predict([picture("red")], 1, False)

    run(model, job)


@POSIX
def test_it_ends_with_its_parent_however_that_ended(colours: Path) -> None:
    code = """
import asyncio, multiprocessing, os, sys
from thawnet.bundle.model import load
from thawnet.serve.workers import Worker

async def job():
    worker = Worker(load(sys.argv[1]))
    async with worker.running():
        await worker.predict([b"broken"], 1, False)
        print(multiprocessing.active_children()[0].pid, flush=True)
        os.kill(os.getpid(), 9)

asyncio.run(job())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(colours)], capture_output=True, text=True, check=False
    )
    pid = int(done.stdout)
    for _ in range(100):
        if not _lives(pid):
            return
        time.sleep(0.05)
    pytest.fail("the worker outlived its parent")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
