"""Cores and memory: how much there is, how much this process takes, and keeps when it is freed."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from .control_group import cpu_quota, memory_left, memory_limit

_PAUSE = 0.02  # seconds between two measurements


def available_cores() -> int:
    """Return the number of cores this process may use.

    Batch systems limit which cores, containers how much time of them; a part of one counts as one.
    """
    hold = hasattr(os, "sched_getaffinity")  # Linux
    cores = len(os.sched_getaffinity(0)) if hold else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def total_memory() -> int | None:
    """Return the bytes of memory that this process may use, None if unknown.

    On Linux a container's limit counts if it is lower than what the machine has.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
    limit = memory_limit()
    return machine if limit is None else min(machine, limit)


def available_memory() -> int | None:
    """Return the bytes that can be taken without swapping, None if unknown."""
    try:
        machine = _kilobytes(Path("/proc/meminfo"), "MemAvailable")
    except (OSError, KeyError):
        return None
    left = memory_left()
    return machine if left is None else min(machine, left)


def used_memory() -> int:
    """Return this process's anonymous resident bytes; other systems than Linux give its peak."""
    try:
        return _kilobytes(Path("/proc/self/status"), "RssAnon")
    except (OSError, KeyError):
        return _largest()


def _largest() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed, instead of returning each to the system.

    Activations are allocated and freed at every layer; fetching fresh pages each time cost a fifth
    of a training step and up to half of a pass through frozen layers (2 cores, 160 px).
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX of malloc.h
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def return_large_blocks() -> None:
    """Let glibc return blocks of 128 kB and more as they are freed.

    Else each that is returned raises the size from which on that is done, to 32 MB in the end, and
    a process that held many requests once keeps their memory.
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(-3, 2**17)  # M_MMAP_THRESHOLD of malloc.h


def return_freed_memory() -> None:
    """Let glibc return what it keeps, so that memory can be measured afresh."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> Any:
    """Return a function of glibc, None where there is none; musl has neither of these."""
    if sys.platform != "linux":
        return None
    import ctypes

    return getattr(ctypes.CDLL(None), name, None)


class PeakMemory:
    """Within the block, measures the most that the process takes, `bytes`."""

    def __init__(self) -> None:
        self.bytes = used_memory()
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._measure, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._watch.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._watch.join()
        self.bytes = max(self.bytes, used_memory())

    def _measure(self) -> None:
        while not self._done.wait(_PAUSE):
            self.bytes = max(self.bytes, used_memory())


def _kilobytes(path: Path, name: str) -> int:
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(name)
