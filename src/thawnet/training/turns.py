"""Trainings in threads of one process: one after another, and the process is left as it was.

Tracing, exporting and compiling a network patch torch for the whole process, and every training
takes all cores: side by side, none would be faster.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..core import console

_turn = threading.Lock()


@contextmanager
def own_turn() -> Iterator[None]:
    """Wait until no other thread of this process trains, and let the next wait for this one.

    What a training sets for the whole process is put back.
    """
    if not _turn.acquire(blocking=False):
        console.say("another thread of this process is training; waiting for it")
        _turn.acquire()
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    random = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(random)
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_num_threads(threads)
        _turn.release()
