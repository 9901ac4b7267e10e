"""Reading of image files and pipes, within limits."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path

from ..core.errors import ImageError

MAX_FILE_BYTES = 512 * 2**20
PIPE_SECONDS = 60  # without a byte; a download may take that long to begin


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises OSError, or ImageError for a file that is too large or not regular (a pipe would block).
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a file")
    if status.st_size > MAX_FILE_BYTES:
        raise _too_large(f"the file holds {status.st_size / 1e6:,.0f} MB")
    with path.open("rb", buffering=0) as file:
        return file.read()


def is_pipe(name: str) -> bool:
    """Return whether a name is that of a pipe; False if it is missing or not a valid name."""
    try:
        return stat.S_ISFIFO(os.stat(name).st_mode)  # noqa: PTH116 - Path raises for odd names
    except (OSError, ValueError):
        return False


def read_pipe(path: Path) -> bytes:
    """Return the content of a pipe that the user named, such as /dev/fd/63 or a named pipe.

    Raises OSError, or ImageError for more than MAX_FILE_BYTES or nothing for PIPE_SECONDS.
    """
    content = bytearray()
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:  # noqa: PTH123 - a descriptor
        ready = select.poll()
        ready.register(pipe, select.POLLIN)
        while ready.poll(1000 * PIPE_SECONDS):
            piece = pipe.read(2**20)
            if piece == b"":
                return bytes(content)
            content += piece or b""  # None: another reader was faster
            if len(content) > MAX_FILE_BYTES:
                raise _too_large("the pipe holds more")
    raise ImageError(f"nothing came out of the pipe for {PIPE_SECONDS} s")


def _too_large(what: str) -> ImageError:
    return ImageError(f"{what}; at most {MAX_FILE_BYTES / 1e6:,.0f} MB are read")
