"""Hosts on this machine."""

from __future__ import annotations

import functools
import http.server
import socketserver
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each; more: headers to send with them."""

    def __init__(self, *arguments: Any, more: Mapping[str, str], **options: Any) -> None:
        self.more = more  # before it answers, which it does while it is made
        super().__init__(*arguments, **options)

    def end_headers(self) -> None:
        """Send some more."""
        for name, value in self.more.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads them."""


@contextmanager
def serving_forever(server: socketserver.ThreadingTCPServer) -> Iterator[str]:
    """Let a server answer, and give its address; in the end it is closed."""
    server.daemon_threads = True
    # Half a second, the default, would be waited for in the end.
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def hosted(folder: Path, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve a folder over http, each file with these headers, and give its address."""
    handler = functools.partial(QuietFiles, directory=str(folder), more=headers or {})
    with serving_forever(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as address:
        yield address


class Raw(http.server.ThreadingHTTPServer):
    """Answers every request with the pieces of `answer` as they are, `pause` seconds before each.

    `asked` lists the paths.
    """

    daemon_threads = True

    def __init__(self, *answer: bytes, pause: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _RawHandler)
        self.answer: Sequence[bytes] = answer
        self.pause = pause
        self.asked: list[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what tests are about."""


class _RawHandler(socketserver.StreamRequestHandler):
    server: Raw

    def handle(self) -> None:
        self.server.asked.append(self.rfile.readline().split()[1].decode())
        while self.rfile.readline().strip():
            pass
        for piece in self.server.answer:
            time.sleep(self.server.pause)
            self.wfile.write(piece)


def ok(content: bytes, *headers: str) -> bytes:
    """Return an answer with its length and these headers."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content
