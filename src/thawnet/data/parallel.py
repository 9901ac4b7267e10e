"""Work on many inputs in a few threads: in order, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

Input = TypeVar("Input")
Output = TypeVar("Output")

AHEAD = 4  # inputs under way per thread: one that is slow does not make the others wait at once


def in_order(
    work: Callable[[Input], Output],
    inputs: Iterable[Input],
    workers: int,
    threads: ThreadPoolExecutor | None = None,
) -> Iterator[Output]:
    """Yield work(input) for each input, in order.

    Unlike Executor.map, which takes all inputs at once, at most AHEAD a thread are under way, which
    bounds memory and the time to stop. threads: a running pool of `workers`; without it one is made
    that ends with the work.
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
    """Cut first..count into ranges of `size`; handing work over one by one costs an eighth."""
    for start in range(first, count, size):
        yield range(start, min(start + size, count))
