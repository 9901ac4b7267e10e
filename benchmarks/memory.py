"""The anonymous memory of a process and its descendants together (Linux)."""

from __future__ import annotations

import threading
from pathlib import Path

PAUSE = 0.25  # seconds between two readings


def anonymous_memory(pid: int) -> int:
    """Return the anonymous resident bytes of a process and its descendants; 0 once it is gone."""
    process = Path(f"/proc/{pid}")
    held, children = 0, []
    try:
        for line in (process / "status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                held = 1024 * int(line.split()[1])
        for thread in process.glob("task/*/children"):
            children += map(int, thread.read_text().split())
    except OSError:
        pass  # it, or one of its threads, has just ended
    return held + sum(map(anonymous_memory, children))


class Memory(threading.Thread):
    """Thread that reads the memory of a process and its descendants, four times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.readings = [0]  # bytes
        self._done = threading.Event()

    def run(self) -> None:
        """Read until `stop` is called."""
        while not self._done.wait(PAUSE):
            self.readings.append(anonymous_memory(self.pid))

    def stop(self) -> int:
        """Stop reading and return the peak, in bytes."""
        self._done.set()
        self.join()
        return max(self.readings)
