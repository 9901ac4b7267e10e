"""CPU cores and memory: what is available, what this process uses, and what glibc keeps of it."""

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

    Batch systems limit the set of cores, containers the time on them. A time limit is rounded down
    to whole cores, but to at least one.
    """
    hold = hasattr(os, "sched_getaffinity")  # Linux
    cores = len(os.sched_getaffinity(0)) if hold else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def total_memory() -> int | None:
    """Return the bytes of memory that this process may use, or None if unknown.

    On Linux, a container's limit applies if it is lower than the memory of the machine.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
    limit = memory_limit()
    return machine if limit is None else min(machine, limit)


def available_memory() -> int | None:
    """Return the bytes that can be allocated without swapping, or None if unknown."""
    try:
        machine = _bytes_of(Path("/proc/meminfo"), "MemAvailable")
    except (OSError, KeyError):
        return None
    left = memory_left()
    return machine if left is None else min(machine, left)


def used_memory() -> int:
    """Return this process's anonymous resident bytes; outside Linux its peak, on Windows 0."""
    try:
        return _bytes_of(Path("/proc/self/status"), "RssAnon")
    except (OSError, KeyError):
        return _largest()


def _largest() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks instead of returning each to the system.

    Activations are allocated and freed at every layer; fetching fresh pages each time cost a fifth
    of a training step and up to half of a pass through frozen layers (2 cores, 160 px).
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX of malloc.h
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def return_large_blocks() -> None:
    """Make glibc return blocks of 128 kB and more as soon as they are freed.

    By default each returned block raises this threshold, up to 32 MB, so a process that once held
    many requests keeps their memory.
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(-3, 2**17)  # M_MMAP_THRESHOLD of malloc.h


def return_freed_memory() -> None:
    """Make glibc return the memory that it keeps, so that its use can be measured afresh."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> Any:
    """Return a function of glibc, or None; musl has neither mallopt nor malloc_trim."""
    if sys.platform != "linux":
        return None
    import ctypes

    return getattr(ctypes.CDLL(None), name, None)


class PeakMemory:
    """Peak memory of the process within a `with` block, as `bytes`."""

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


def _bytes_of(path: Path, name: str) -> int:
    """Return a value of a file of proc(5), which counts in kB, in bytes."""
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(name)
