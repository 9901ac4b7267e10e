"""The server: connections that are closed when their request does not come, and a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 40.0  # for a whole request, more than intake.Limits gives its body, which answers 408
MOST = 800  # open connections; the usual limit of open files is 1,024
STOP_SECONDS = 45  # for what was taken when a stop was asked for


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one. Raises OSError."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    listening = socket.create_server((host, port), family=family, backlog=2048)
    # Connections inherit it. Without, the body of an answer waits 40 ms for the other side to
    # acknowledge the headers: asyncio sets it only on sockets that it made itself.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def run(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; what was taken until then is answered."""
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn passes the signal on in the end
        make_server(app).run([listening])


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Return uvicorn, set up; it stops once `should_exit` is set."""
    config = uvicorn.Config(
        app,
        http=PunctualProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="error",
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return uvicorn.Server(config)


class PunctualProtocol(H11Protocol):
    """uvicorn's protocol with a deadline for receiving each request, and a cap on connections.

    uvicorn itself waits for ever for the first byte, or for the end, of a request: connections
    that say nothing would use up the files that a process may open. h11 and not httptools, since it
    bounds the size of headers.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock; over the cap, close whoever has kept silent for longest."""
        super().connection_made(transport)
        self._restart()
        if len(self.connections) > MOST:
            own = [each for each in self.connections if isinstance(each, PunctualProtocol)]
            oldest = min(own, key=lambda each: each.due)
            if oldest.due < math.inf:
                oldest.close_late()

    @property
    def due(self) -> float:
        """When its request must be there, by the loop's clock; infinite while one is answered."""
        return math.inf if self._deadline is None else self._deadline.when()

    def handle_events(self) -> None:
        """Stop the clock when a request is complete."""
        super().handle_events()
        cycle = self.cycle  # of the request before, until the next one's headers are there
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            self._stop()

    def on_response_complete(self) -> None:
        """Start it again for the next request, or for the rest of one answered before its end."""
        self._restart()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def close_late(self) -> None:
        """Close a connection whose request did not come in time."""
        if not self.transport.is_closing():
            self.transport.close()

    def _restart(self) -> None:
        self._stop()
        self._deadline = self.loop.call_later(SECONDS, self.close_late)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
