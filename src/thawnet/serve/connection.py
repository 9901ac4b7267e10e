"""The server, whose connections are closed in time, and so that no answer is lost.

A socket that is closed before everything sent to it was read answers with a reset, which deletes
what the other side has not read yet: a proxy then says 502 in place of a refusal. So an answer that
comes before the end of its request waits for a small rest of it, or says `Connection: close`, and
closing means: no more is written, and what still comes is discarded for a while.
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

SECONDS = 40.0  # for a whole request, more than intake.Limits gives its body, which answers 408
KEEP_ALIVE = 75  # before the next one; nginx and other proxies keep a connection for 60 s
MOST = 800  # open connections; the usual limit of open files is 1,024
DRAIN = 2**20  # bytes of a request that are read before it is answered without them
DRAIN_SECONDS = 2.0  # for these
SILENCE = 2.0  # seconds without a byte after which a connection that is closing is cut
LINGER = 30.0  # seconds after which it is cut in any case, as nginx does
NOTICE = 1.0  # seconds in which a stop is announced by answers, before idle connections are closed
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
    return_large_blocks()
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn passes the signal on in the end
        Server(app).run([listening])


class Server(uvicorn.Server):
    """uvicorn, which announces a stop on open connections before it closes them.

    It stops once `should_exit` is set.
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
        """Say `Connection: close` with every answer for a while, then close what is idle."""
        self._answers.stopping = True
        until = time.monotonic() + NOTICE
        await asyncio.sleep(0.1)  # for those that are connecting
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


class LastAnswers:
    """ASGI middleware: says `Connection: close` with the last answer of a connection.

    That is every answer while the service stops, and one to a request of which much is still to
    come. A small rest is read first, for proxies that read no answer before they have sent all.
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
                    # The server closes after an exception that nobody caught, which is a 500.
                    if self.stopping or not body.ended or message["status"] == 500:
                        headers["connection"] = "close"
            await send(message)

        await self.app(scope, body.receive, send_last)


class _Body:
    """The body of a request."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self.ended = False  # nothing more of it will come
        self._receive = receive
        length = headers.get("content-length", "0")  # h11 lets only numbers pass
        self._small = int(length) <= DRAIN
        # A client that asks before it sends the body is told to by the first call of receive.
        self._awaited = headers.get("expect", "").lower() != "100-continue"

    async def receive(self) -> Message:
        """Return the next message, as ASGI has it."""
        self._awaited = True
        message = await self._receive()
        self.ended = not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read what is left, as long as it is little and comes soon."""
        if not self._small or not self._awaited:
            return
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self.ended and size <= DRAIN:
                    size += len((await self.receive()).get("body", b""))


class _Transport(asyncio.Transport):
    """A connection's transport whose `close` loses no answer: see the head of this module."""

    def __init__(self, transport: asyncio.Transport, closing: Callable[[], None]) -> None:
        """closing: called when the connection begins to close."""
        super().__init__()
        self.finished = False  # the other side sends nothing more
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
        except OSError:  # the other side is gone
            self._transport.abort()
            return
        self._lingers = True
        self._transport.resume_reading()
        self._closing()

    def cut(self) -> None:
        """Close it at once, whatever is still to come."""
        self._transport.close()


class PunctualProtocol(H11Protocol):
    """uvicorn's protocol with a deadline for receiving each request, and a cap on connections.

    uvicorn itself waits for ever for the first byte, or for the end, of a request: connections
    that say nothing would use up the files that a process may open. h11 and not httptools, since it
    bounds the size of headers.
    """

    _line: _Transport
    _deadline: asyncio.TimerHandle | None = None
    _closed = math.inf  # when it was, by the loop's clock

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # TCP
        """Start the clock; over the cap, close the connection that was silent for longest."""
        self._line = _Transport(transport, self._linger)
        super().connection_made(self._line)
        self._restart(SECONDS)
        if len(self.connections) > MOST:
            oldest = min(cast("set[PunctualProtocol]", self.connections), key=lambda own: own.due)
            if oldest.due < math.inf:
                oldest._line.cut()

    @property
    def due(self) -> float:
        """The deadline of its request, by the loop's clock; infinite while one is answered."""
        return math.inf if self._deadline is None else self._deadline.when()

    def data_received(self, data: bytes) -> None:
        """Read a request, or discard what comes after the last one."""
        if not self.transport.is_closing():
            super().data_received(data)
        elif self.loop.time() < self._closed + LINGER:
            self._restart(SILENCE)

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio takes a bool
        """Keep the connection until what was asked on it is answered; nothing more will be."""
        self._line.finished = True
        if self._answering():
            self.cycle.keep_alive = False
            return True
        return False

    def handle_events(self) -> None:
        """Stop the clock when a request is complete."""
        super().handle_events()
        if self._answering():
            self._stop()

    def on_response_complete(self) -> None:
        """Start it again for the next request."""
        if not self.transport.is_closing():
            self._restart(KEEP_ALIVE + SECONDS)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def _answering(self) -> bool:
        """Whether a request is there to its end and its answer is not."""
        cycle = self.cycle  # of the request before, until the next one's headers are there
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def _linger(self) -> None:
        self._closed = self.loop.time()
        self._restart(SILENCE)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its body turned out to be no HTTP
            self.cycle.message_event.set()

    def _restart(self, seconds: float) -> None:
        self._stop()
        self._deadline = self.loop.call_later(seconds, self._line.cut)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
