"""Batches of images from concurrent requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from ..bundle.model import Model
from .refusals import Busy, Failed, Refused
from .workers import AHEAD, Answer, Worker, WorkerLostError

BATCH_BYTES = 8 * 2**20  # limit for several images, as a process holds a whole batch in memory


@dataclass
class _Waiting:
    """An image in the queue, and the future of its answer."""

    data: bytes | bytearray
    top_k: int
    explain: bool
    answer: asyncio.Future[Answer]
    suspect: bool = False
    """Whether a process has ended while computing a batch with this image."""

    def fail(self, error: Refused) -> None:
        """Answer with an error."""
        if not self.answer.done():  # else the client is gone
            self.answer.set_exception(error)


class Batcher:
    """A queue of images, and one process per thread of the model, which take batches from it.

    A free process waits `window` seconds for a batch to fill; a busy one finds a batch that has
    gathered meanwhile. So batches are small under little load and full under heavy load.

    If a process ends, its images are computed again, one at a time. An image that ends a second
    process fails its own request and no other.
    """

    def __init__(
        self,
        model: Model,
        capacity: int,
        window: float,
        seen: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        """capacity: most images in the queue. seen: called with each batch's images and seconds."""
        self.model = model
        self.capacity = capacity
        self.window = window
        self._seen = seen
        self._queue: deque[_Waiting] = deque()
        self._filled = asyncio.Event()
        self._workers: list[Worker] = []

    @property
    def ready(self) -> bool:
        """Whether any process has the network open."""
        return any(worker.ready.is_set() for worker in self._workers)

    @property
    def waiting(self) -> int:
        """Images that no process has taken yet."""
        return len(self._queue)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the processes until the block is left."""
        self._workers = workers = [Worker(self.model) for _ in range(self.model.threads)]
        async with contextlib.AsyncExitStack() as stack:
            for worker in workers:
                await stack.enter_async_context(worker.running())
            tasks = [
                asyncio.create_task(self._work(worker)) for worker in workers for _ in range(AHEAD)
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def predict(
        self, images: Sequence[bytes | bytearray], top_k: int, explain: bool
    ) -> list[Answer]:
        """Return an answer for each image, in order. Raises Busy if the queue is full."""
        if len(self._queue) + len(images) > self.capacity:
            raise Busy(f"{len(self._queue):,} images are waiting already")
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Answer]] = [loop.create_future() for _ in images]
        for data, answer in zip(images, answers, strict=True):
            self._queue.append(_Waiting(data, top_k, explain, answer))
        self._filled.set()
        return await asyncio.gather(*answers)

    async def _work(self, worker: Worker) -> None:
        while True:
            await self._filled.wait()
            if len(self._queue) < self.model.batch:
                await asyncio.sleep(self.window)
            await worker.ready.wait()  # while the process is replaced, the others take its images
            if not (batch := self._take()):
                continue
            started = time.monotonic()
            try:
                answers = await worker.predict(
                    [image.data for image in batch],
                    max(image.top_k for image in batch),
                    any(image.explain for image in batch),
                )
            except WorkerLostError as lost:
                self._again(batch, lost.begun)
                continue
            except Exception as error:
                logging.getLogger(__name__).error("a batch failed: %r", error)
                for image in batch:
                    image.fail(Failed())
                continue
            self._seen(len(batch), time.monotonic() - started)
            for image, answer in zip(batch, answers, strict=True):
                if not image.answer.done():  # else the client is gone
                    image.answer.set_result(answer)

    def _take(self) -> list[_Waiting]:
        """Take the next batch from the head of the queue."""
        batch: list[_Waiting] = []
        size = 0
        while self._queue and len(batch) < self.model.batch:
            size += len(self._queue[0].data)
            if batch and (batch[0].suspect or self._queue[0].suspect or size > BATCH_BYTES):
                break
            image = self._queue.popleft()
            if not image.answer.cancelled():
                batch.append(image)
        if not self._queue:
            self._filled.clear()
        return batch

    def _again(self, batch: list[_Waiting], begun: bool) -> None:
        """Return images to the head of the queue; fail one that has now lost two processes."""
        for image in reversed(batch):
            if begun and image.suspect:
                sentence = "a worker process ended twice while it read this request's images"
                image.fail(Refused(500, sentence))
                continue
            image.suspect = image.suspect or begun
            self._queue.appendleft(image)
        self._filled.set()
