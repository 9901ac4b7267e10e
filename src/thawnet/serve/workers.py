"""Worker processes that decode and compute for the HTTP process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import pickle
import signal
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence

from ..bundle.model import Model, Prediction
from ..core.errors import ImageError

Answer = Prediction | ImageError

AHEAD = 2  # batches sent to a process at once, so that the next is ready when one is done
STOP_SECONDS = 10.0  # for a process to finish, before it is killed
PAUSE = 0.2  # seconds before a process that ended is replaced
LENGTH = struct.Struct("!Q")  # precedes each answer
PIECE = 2**18  # bytes written at once, so that a batch is not copied whole
# The same on every system; a worker inherits none of this process's threads, locks and sockets.
_processes = multiprocessing.get_context("spawn")


class WorkerLostError(Exception):
    """The process ended, for example by a fault in a decoder's native code.

    begun: whether it may have been computing these images, rather than others.
    """

    def __init__(self, begun: bool) -> None:
        super().__init__("a worker process ended")
        self.begun = begun


class Worker:
    """A process with the network loaded, which computes batches one after another.

    A thread that decodes and the one that serves HTTP would wait for each other, as would threads
    that wait for processes (docs/experiments.md). And a fault in a decoder cannot end the service.
    """

    def __init__(self, model: Model) -> None:
        self.ready = asyncio.Event()  # set once the process has loaded the network
        self._model = model
        self._line_is_free = asyncio.Lock()
        self._waiting: deque[asyncio.Future[list[Answer]]] = deque()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep a process running until the block is left."""
        await self._start()
        listening = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await self._stop()

    async def predict(
        self, images: Sequence[bytes | bytearray], top_k: int, explain: bool
    ) -> list[Answer]:
        """Return the answers of Model.predict_batch.

        Raises WorkerLostError if the process ended; a new one computes the next batch.
        """
        question = pickle.dumps(([len(image) for image in images], top_k, explain))
        async with self._line_is_free:
            await self.ready.wait()
            answer = self._expect()
            with contextlib.suppress(OSError):  # the process ended; `answer` raises
                for piece in _pieces([question, *images]):
                    self._writer.write(piece)
                    await self._writer.drain()
        return await answer

    def _expect(self) -> asyncio.Future[list[Answer]]:
        answer: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        return answer

    async def _listen(self) -> None:
        """Resolve answers in the order of the questions; replace the process if it ends."""
        while True:
            try:
                (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
                data = await self._reader.readexactly(length)
            except (OSError, EOFError):
                await self._replace()
                continue
            answers = pickle.loads(data)  # noqa: S301 - its own
            waiting = self._waiting.popleft()
            if waiting.done():
                continue
            if isinstance(answers, str):
                waiting.set_exception(RuntimeError(answers))
            else:
                waiting.set_result(answers)

    async def _replace(self) -> None:
        """Fail the pending questions and start another process."""
        self.ready.clear()
        lost, self._waiting = self._waiting, deque()
        for position, answers in enumerate(lost):
            if not answers.done():
                answers.set_exception(WorkerLostError(begun=position == 0))
        await self._stop()
        logging.getLogger(__name__).error(
            "a worker process ended (exit status %s); another one is started",
            self._process.exitcode,
        )
        while True:
            await asyncio.sleep(PAUSE)  # processes that end at once must not use up the CPU
            try:
                await self._start()
            except OSError as error:  # no memory, no more open files: for the moment
                logging.getLogger(__name__).error("no worker can be started: %s", error)
            else:
                return

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        process = _processes.Process(
            target=_work, args=(theirs,), name="thawnet worker", daemon=True
        )
        with theirs:
            try:
                process.start()
            except OSError:
                ours.close()
                raise
        self._process = process
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        # Not as an argument: `start` would block for ever if the process ended before reading it.
        self._writer.write(pickle.dumps(self._model, pickle.HIGHEST_PROTOCOL))
        self._expect().add_done_callback(self._opened)

    def _opened(self, answer: asyncio.Future[list[Answer]]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self.ready.set()

    async def _stop(self) -> None:
        """End the process by closing its socket; kill it if it does not end in time."""
        self._writer.close()
        await asyncio.to_thread(self._process.join, STOP_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)


def _work(line: socket.socket) -> None:
    """Load the model, then answer until the other end of the socket is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal or supervisor sends them to all
        signal.signal(number, signal.SIG_IGN)
    closed = (OSError, EOFError, pickle.UnpicklingError)
    with line, line.makefile("rb") as questions, contextlib.suppress(*closed):
        model: Model = pickle.load(questions)  # noqa: S301 - the service's own, as what follows
        answer: list[Answer] | str = []  # the first says that the network is loaded
        while True:
            data = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
            line.sendall(LENGTH.pack(len(data)) + data)
            sizes, top_k, explain = pickle.load(questions)  # noqa: S301
            images = [questions.read(size) for size in sizes]
            try:
                answer = model.predict_batch(images, top_k, explain)
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"


def _pieces(parts: Sequence[bytes | bytearray]) -> Iterator[bytearray]:
    """Yield the bytes of all parts, PIECE at a time."""
    piece = bytearray()
    for part in parts:
        rest = memoryview(part)
        while rest:
            some = rest[: PIECE - len(piece)]
            piece += some
            rest = rest[len(some) :]
            if len(piece) == PIECE:
                yield piece
                piece = bytearray()
    if piece:
        yield piece
