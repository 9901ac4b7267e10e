"""Ordered processing of many inputs in a few threads, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

Input = TypeVar("Input")
Output = TypeVar("Output")

AHEAD = 4  # inputs in flight per thread, so that a slow one does not stall the others at once


def in_order(
    work: Callable[[Input], Output],
    inputs: Iterable[Input],
    workers: int,
    threads: ThreadPoolExecutor | None = None,
) -> Iterator[Output]:
    """Yield work(input) for each input, in order.

    Unlike Executor.map, which submits all inputs at once, this keeps at most AHEAD per thread in
    flight, which bounds memory and the time to stop. threads: a running pool of `workers` threads;
    by default, one is created for this call.
    """
    waiting: deque[Future[Output]] = deque()
    with nullcontext(threads) if threads else ThreadPoolExecutor(workers) as pool:
        for value in inputs:
            waiting.append(pool.submit(work, value))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def blocks(count: int, size: int, first: int = 0) -> Iterator[range]:
    """Yield ranges of `size` from `first` to `count`; single inputs cost an eighth of the time."""
    for start in range(first, count, size):
        yield range(start, min(start + size, count))
