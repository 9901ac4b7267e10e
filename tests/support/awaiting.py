"""What tests wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def awaited(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread: a browser that is held open has taken the tests' own.

    Raises TimeoutError when that takes a minute.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, asyncio.wait_for(coroutine, 60)).result()


def wait_until(reached: Callable[[], bool], seconds: float = 60, pause: float = 0.02) -> None:
    """Look again and again; raises TimeoutError where it is not reached in time."""
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError(f"not reached in {seconds:g} s")
        time.sleep(pause)


def lines_of(log: Path) -> int:
    """Return how many whole lines a file has, 0 where there is none."""
    return log.read_text().count("\n") if log.exists() else 0
