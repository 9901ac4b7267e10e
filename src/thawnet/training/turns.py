"""Trainings in threads of one process: one after another, each from a random generator of its own.

Tracing, exporting and compiling a network patch torch for the whole process, and every training
takes all cores: side by side, none would be faster.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .. import console

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
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_num_threads(threads)
        _turn.release()


class OwnRandom(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, what torch draws in this thread comes from a generator of its own.

    The numbers are those that follow `torch.manual_seed(seed)`, whatever other threads draw, and
    the process's generator is left as it is. For the CPU.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Give an operation the generator, if it takes one or has a form that does."""
        form = f"{func._overloadname}_generator".removeprefix("default_")
        func = getattr(func.overloadpacket, form, func)
        kwargs = kwargs or {}
        if any(argument.name == "generator" for argument in func._schema.arguments):
            kwargs = {**kwargs, "generator": self._generator}
        return func(*args, **kwargs)
