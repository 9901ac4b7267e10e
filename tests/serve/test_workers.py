"""Worker processes answer as the model does, and one that ends is replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service_client import picture
from thawnet.bundle.predict import Model
from thawnet.errors import ImageError
from thawnet.serve.workers import Worker, WorkerLostError


@pytest.fixture
def worker(model: Model) -> Iterator[Worker]:
    worker = Worker(model)
    yield worker
    worker.stop()


def pid_of_worker() -> int:
    (process,) = multiprocessing.active_children()
    assert process.pid is not None
    return process.pid


def test_worker_answers_as_the_model_does(worker: Worker, model: Model) -> None:
    images = [picture("red"), b"broken", picture("blue", (70, 20))]
    wanted = model.predict_batch(images, 2)
    found = worker.predict(images, 2, False)
    assert [each for each in found if not isinstance(each, ImageError)] == [wanted[0], wanted[2]]
    assert str(found[1]) == str(wanted[1])


def test_one_that_ends_is_told_and_replaced(worker: Worker) -> None:
    worker.predict([picture("red")], 1, False)
    before = pid_of_worker()
    os.kill(before, signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        worker.predict([picture("red")], 1, False)
    assert pid_of_worker() != before
    (found,) = worker.predict([picture("red")], 1, False)
    assert not isinstance(found, ImageError)


def test_ctrl_c_for_all_leaves_it_to_its_parent(worker: Worker) -> None:
    worker.predict([picture("red")], 1, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid_of_worker(), number)
    assert worker.predict([picture("red")], 1, False)


def test_it_ends_with_its_parent_however_that_ended(colours: Path) -> None:
    code = """
import multiprocessing, os, sys, time
from thawnet.bundle.predict import load
from thawnet.serve.workers import Worker
worker = Worker(load(sys.argv[1]))
worker.predict([b"broken"], 1, False)
print(multiprocessing.active_children()[0].pid, flush=True)
os.kill(os.getpid(), 9)
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
