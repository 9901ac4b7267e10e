"""What a container or a batch system lets this process use: Linux control groups, v1 and v2.

Version 2 has one tree of groups, version 1 one for each resource (Documentation/admin-guide/
cgroup-v2.rst and cgroup-v1/ of the kernel). A group is limited by all those above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
UNLIMITED = 2**60  # bytes: version 1 writes a number of pages that no machine has


def cpu_quota() -> float | None:
    """Return how many cores' time this process may take, None without a limit."""
    quotas = []
    for group in _groups("cpu"):
        words = _words(group / "cpu.max") or [
            *_words(group / "cpu.cfs_quota_us"),
            *_words(group / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and words[0].isdigit() and int(words[1]):  # else 'max', or -1
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Return the bytes that this process and its neighbours in the group may take, if limited."""
    return min((limit for limit, _ in _memory()), default=None)


def memory_left() -> int | None:
    """Return the bytes that are left of that, None without a limit."""
    return min((left for _, left in _memory()), default=None)


def _memory() -> Iterator[tuple[int, int]]:
    """Yield the limit of each group above this process that has one, and what is left of it."""
    for group in _groups("memory"):
        words = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        taken = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        if words and words[0].isdigit() and int(words[0]) < UNLIMITED:
            limit, used = int(words[0]), int(taken[0]) if taken else 0
            # Files that were read count too, and are given up when memory is short.
            yield limit, max(0, limit - used + _reclaimable(group))


def _reclaimable(group: Path) -> int:
    words = _words(group / "memory.stat")
    fields = dict(zip(words[::2], words[1::2], strict=False))
    names = ("inactive_file", "active_file")
    return sum(int(fields.get(f"total_{name}", fields.get(name, 0))) for name in names)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of those above it, in both versions."""
    for line in _lines(OWN):
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = ROOT if not names else ROOT / controller
        own = root / path.strip("/")
        # In a container the path is often that of the machine, and only the root is there.
        folder = own if own.is_dir() else root
        while True:
            yield folder
            if folder == root:
                break
            folder = folder.parent


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):  # no control groups, or none of this version
        return []
