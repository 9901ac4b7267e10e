"""CPU and memory limits of containers and batch systems: Linux control groups, v1 and v2.

Version 2 has one tree of groups, version 1 one for each resource (Documentation/admin-guide/
cgroup-v2.rst and cgroup-v1/ of the kernel). The limits of all its ancestors apply to a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
UNLIMITED = 2**60  # bytes; for no limit, version 1 writes more pages than any machine has


def cpu_quota() -> float | None:
    """Return the CPU quota of this process in cores, or None if there is no limit."""
    quotas = []
    for group in _groups("cpu"):
        words = _words(group / "cpu.max") or [
            *_words(group / "cpu.cfs_quota_us"),
            *_words(group / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and words[0].isdigit() and int(words[1]):  # no limit is 'max' or -1
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Return the memory limit in bytes, shared with the rest of the group, or None."""
    return min((limit for limit, _ in _memory()), default=None)


def memory_left() -> int | None:
    """Return the bytes left within the memory limit, or None if there is no limit."""
    return min((left for _, left in _memory()), default=None)


def _memory() -> Iterator[tuple[int, int]]:
    """Yield (limit, bytes left) for each group of this process that has a memory limit."""
    for group in _groups("memory"):
        words = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        taken = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        if words and words[0].isdigit() and int(words[0]) < UNLIMITED:
            limit, used = int(words[0]), int(taken[0]) if taken else 0
            # The page cache counts as used, but the kernel reclaims it when memory is short.
            yield limit, max(0, limit - used + _reclaimable(group))


def _reclaimable(group: Path) -> int:
    words = _words(group / "memory.stat")
    fields = dict(zip(words[::2], words[1::2], strict=False))
    names = ("inactive_file", "active_file")
    return sum(int(fields.get(f"total_{name}", fields.get(name, 0))) for name in names)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and its ancestors, in both versions."""
    for line in _lines(OWN):
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = ROOT if not names else ROOT / controller
        own = root / path.strip("/")
        # Inside a container the path is often the host's, and only the root exists.
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
