"""The server: its connections have deadlines, and closing one loses no response.

Closing a socket before everything sent to it has been read resets the connection. The reset deletes
what the client has not read yet, so a proxy reports 502 instead of a refusal. Therefore a response
that precedes the end of its request first waits for the rest, if that is small, or else says
`Connection: close`. A closing connection writes no more and discards what arrives for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..core.memory import return_large_blocks

SECONDS = 40.0  # for a whole request; intake.Limits, which answers 408, gives its body less
KEEP_ALIVE = 75  # seconds between requests; nginx and other proxies keep connections for 60 s
MOST = 800  # open connections; the usual limit of open files is 1,024
DRAIN = 2**20  # bytes; an unread rest of a request up to this is read before the response
DRAIN_SECONDS = 2.0  # for reading it
SILENCE = 2.0  # seconds without a byte after which a closing connection is cut
LINGER = 30.0  # seconds after which it is cut in any case, as in nginx
UNREAD = 30.0  # seconds in which a client has to read some of a response; each time, 64 KiB of it
NOTICE = 1.0  # seconds in which responses announce a stop, before idle connections are closed
STOP_SECONDS = 45  # for requests accepted before the stop


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises OSError."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    both = host == "::" and socket.has_dualstack_ipv6()  # all addresses, of IPv4 too
    listening = socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    # Connections inherit this option, which asyncio sets only on sockets that it created itself.
    # Without it, a response's body waits 40 ms for the client to acknowledge the headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def run(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, then answer the requests accepted so far."""
    return_large_blocks()
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn re-raises the signal at the end
        Server(app).run([listening])


class Server(uvicorn.Server):
    """A uvicorn server that announces a stop on open connections before it closes them.

    Set `should_exit` to stop it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._answers = LastAnswers(app)
        super().__init__(
            uvicorn.Config(
                self._answers,
                http=PunctualProtocol,
                ws="none",
                lifespan="on",
                access_log=False,
                log_level="error",
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Send `Connection: close` with every response for a while, then close idle connections."""
        self._answers.stopping = True
        until = time.monotonic() + NOTICE
        await asyncio.sleep(0.1)  # for clients that are connecting
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


class LastAnswers:
    """ASGI middleware that sends `Connection: close` with the last response of a connection.

    That is every response while the service stops, and one to a request with much of its body still
    to come. A small rest is read first, as some proxies read no response before they have sent all.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(Headers(scope=scope), receive)

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("connection") != "close":
                    await body.drain()
                    # After an uncaught exception, which is a 500, the server closes the connection.
                    if self.stopping or not body.ended or message["status"] == 500:
                        headers["connection"] = "close"
            await send(message)

        await self.app(scope, body.receive, send_last)


class _Body:
    """The body of a request."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self.ended = False  # whether all of it has been received
        self._receive = receive
        length = headers.get("content-length", "0")  # h11 accepts only numbers
        self._small = int(length) <= DRAIN
        # With `Expect: 100-continue`, the first call of receive tells the client to send the body.
        self._awaited = headers.get("expect", "").lower() != "100-continue"

    async def receive(self) -> Message:
        """Return the next ASGI message."""
        self._awaited = True
        message = await self._receive()
        self.ended = not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read the rest of the body, if it is small and arrives soon."""
        if not self._small or not self._awaited:
            return
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self.ended and size <= DRAIN:
                    size += len((await self.receive()).get("body", b""))


class _Transport(asyncio.Transport):
    """A transport whose `close` loses no response; see the module's docstring."""

    def __init__(self, transport: asyncio.Transport, closing: Callable[[], None]) -> None:
        """closing: called when the connection begins to close."""
        super().__init__()
        self.finished = False  # whether the client sends nothing more
        self._transport = transport
        self._closing = closing
        self._lingers = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._lingers:
            self._transport.write(data)

    def close(self) -> None:
        if self.is_closing():
            return
        if self.finished:
            self.cut()
            return
        try:
            self._transport.write_eof()
        except OSError:  # the client is gone
            self._transport.abort()
            return
        self._lingers = True
        self._transport.resume_reading()
        self._closing()

    def cut(self) -> None:
        """Close the connection once the client has read what was written to it."""
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()


class PunctualProtocol(H11Protocol):
    """uvicorn's protocol with a deadline for receiving each request, and a cap on connections.

    uvicorn itself waits indefinitely for the first byte, or the end, of a request, so silent
    connections would use up the files that a process may open. The base is h11 instead of httptools
    because it limits the size of headers.
    """

    _line: _Transport
    _deadline: asyncio.TimerHandle | None = None
    _unread = False  # whether more of its responses waits than the buffer should hold
    _closed = math.inf  # when closing began, by the loop's clock

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # TCP
        """Set the first deadline; above the cap, end the connection whose deadline is nearest."""
        self._line = _Transport(transport, self._linger)
        super().connection_made(self._line)
        self._restart(SECONDS)
        if len(self.connections) > MOST:
            oldest = min(cast("set[PunctualProtocol]", self.connections), key=lambda own: own.due)
            if oldest.due < math.inf:
                oldest._line.abort()

    @property
    def due(self) -> float:
        """The deadline for a request, by the loop's clock; infinite while one is being answered."""
        return math.inf if self._deadline is None else self._deadline.when()

    def data_received(self, data: bytes) -> None:
        """Parse the data, or discard it if the connection is closing."""
        if not self.transport.is_closing():
            super().data_received(data)
        elif self.loop.time() < self._closed + LINGER:
            self._restart(SILENCE)

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio takes a bool
        """Keep the connection open until its last request is answered, if one is complete."""
        self._line.finished = True
        if self._answering():
            self.cycle.keep_alive = False
            return True
        return False

    def pause_writing(self) -> None:
        """Set a deadline for a client that reads no more of its response."""
        super().pause_writing()
        self._unread = True
        self._restart(UNREAD)

    def resume_writing(self) -> None:
        """Cancel that deadline."""
        super().resume_writing()
        self._unread = False
        if self._answering():
            self._stop()
        elif not self.transport.is_closing():
            self._restart(KEEP_ALIVE + SECONDS)

    def handle_events(self) -> None:
        """Cancel the deadline once a request is complete."""
        super().handle_events()
        if self._answering() and not self._unread:
            self._stop()

    def on_response_complete(self) -> None:
        """Set the deadline for the next request."""
        if not self.transport.is_closing() and not self._unread:
            self._restart(KEEP_ALIVE + SECONDS)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline."""
        self._stop()
        super().connection_lost(exc)

    def _answering(self) -> bool:
        """Whether a request is complete and its response is not."""
        cycle = self.cycle  # the previous request's, until the next one's headers have arrived
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def _linger(self) -> None:
        self._closed = self.loop.time()
        self._restart(SILENCE)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its body turned out not to be valid HTTP
            self.cycle.message_event.set()

    def _restart(self, seconds: float) -> None:
        self._stop()
        self._deadline = self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self._line.cut()
        self._deadline = self.loop.call_later(UNREAD, self._line.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
