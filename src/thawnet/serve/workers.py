"""Processes that decode and compute for the one that speaks HTTP."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection

from ..bundle.predict import Model, Prediction
from ..errors import ImageError

Answer = Prediction | ImageError

STOP_SECONDS = 10.0  # for what it computes, before it is killed
# The same on every system, and nothing of this process's threads, locks and sockets is inherited.
_processes = multiprocessing.get_context("spawn")


class WorkerLostError(Exception):
    """The process ended while it computed, as a fault in a decoder's native code makes it."""


class Worker:
    """A process with the network open, which answers one batch after another.

    Python runs one thread of a process at a time: where decoding and HTTP share a process they wait
    for each other so often that a fifth of the requests are lost (docs/experiments.md). And what an
    image does to a decoder does not end the service.
    """

    def __init__(self, model: Model) -> None:
        """Start the process; the first batch waits until its network is open."""
        self._model = model
        self._start()

    def predict(self, images: Sequence[bytes], top_k: int, explain: bool) -> list[Answer]:
        """Return what Model.predict_batch does. Called by one thread at a time.

        Raises WorkerLostError where the process ended; another one is there for the next batch.
        """
        try:
            self._line.send((images, top_k, explain))
            found: list[Answer] | str = self._line.recv()
        except (EOFError, OSError) as error:
            self.stop()
            self._start()
            raise WorkerLostError("a worker process ended while it computed") from error
        if isinstance(found, str):
            raise RuntimeError(found)
        return found

    def stop(self) -> None:
        """End the process."""
        self._line.close()
        self._process.join(STOP_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _start(self) -> None:
        self._line, theirs = _processes.Pipe()
        self._process = _processes.Process(
            target=_work, args=(theirs, self._model), name="thawnet worker", daemon=True
        )
        self._process.start()
        theirs.close()


def _work(line: Connection, model: Model) -> None:
    """Answer until the other end of the line is closed, by whatever ended that process."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal and a supervisor send them to all
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        while True:
            images, top_k, explain = line.recv()
            try:
                answer: list[Answer] | str = model.predict_batch(images, top_k, explain)
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
            line.send(answer)
