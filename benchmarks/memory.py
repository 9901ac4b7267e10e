"""The anonymous memory that a process and all below it hold together (Linux)."""

from __future__ import annotations

import threading
from pathlib import Path

PAUSE = 0.25  # seconds between two looks


def anonymous_memory(root: int) -> int:
    """Return the anonymous resident bytes of a process and its descendants; 0 once it is gone."""
    return _held(root) + sum(map(anonymous_memory, _children(root)))


def _held(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def _children(pid: int) -> list[int]:
    """Return whom any thread of a process started."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, file.read_text().split())
        except OSError:
            continue  # the thread ended while it was looked for
    return found


class Memory(threading.Thread):
    """Watches the memory of a process and all below it until it ends; `most` is in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.most = 0
        self._done = threading.Event()

    def run(self) -> None:
        """Look four times a second."""
        while not self._done.wait(PAUSE):
            self.most = max(self.most, anonymous_memory(self.pid))

    def stop(self) -> int:
        """End the watch and return the most that was seen."""
        self._done.set()
        self.join()
        return self.most
