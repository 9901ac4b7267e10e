"""The images of a request, read within limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from .refusals import Busy, Refused

FORM = "multipart/form-data"
PLAIN = ("application/octet-stream", "image/")  # the body is one image


@dataclass(frozen=True)
class Limits:
    """What one request may take, and what all of them may.

    body: bytes of a request. images: of a request. seconds: to receive it. requests: received or
    computed at once. total: bytes of all bodies that are held.
    """

    body: int = 32 * 2**20
    images: int = 64
    seconds: float = 30.0
    requests: int = 256
    total: int = 256 * 2**20


@dataclass
class Upload:
    """One image as it was sent: its file's name, None where there was none, and its bytes."""

    name: str | None
    data: bytes


@dataclass
class Intake:
    """Reads requests, and counts what is held of all of them."""

    limits: Limits
    requests: int = field(default=0, init=False)
    held: int = field(default=0, init=False)

    @contextmanager
    def room(self) -> Iterator[None]:
        """Take one of the requests that may be under way. Raises Busy where there is none."""
        if self.requests >= self.limits.requests:
            raise Busy(f"{self.requests:,} requests are under way already")
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def body(self) -> Iterator[Body]:
        """Yield a body to be filled, counted until the block is left."""
        body = Body(self)
        try:
            yield body
        finally:
            self.held -= len(body.content)


class Body:
    """The bytes of one request."""

    def __init__(self, intake: Intake) -> None:
        self.content = bytearray()
        self._intake = intake

    async def receive(self, request: Request) -> None:
        """Read everything. Raises Refused for what is too large, too slow, or cut off."""
        limits = self._intake.limits
        said = request.headers.get("content-length", "0")
        if said.isdecimal() and int(said) > limits.body:
            raise _too_large(limits)
        try:
            async with asyncio.timeout(limits.seconds):
                await self._fill(request.stream())
        except TimeoutError:
            raise Refused(
                408,
                f"{len(self.content):,} bytes came in {limits.seconds:g} seconds; the whole "
                "request must come in that time",
                {"Connection": "close"},
            ) from None
        except ClientDisconnect:
            raise Refused(400, "the request was cut off") from None

    async def _fill(self, stream: AsyncIterator[bytes]) -> None:
        limits, intake = self._intake.limits, self._intake
        async for chunk in stream:
            if len(self.content) + len(chunk) > limits.body:
                raise _too_large(limits)
            if intake.held + len(chunk) > limits.total:
                raise Busy(f"{intake.held:,} bytes of other requests are held already")
            self.content += chunk
            intake.held += len(chunk)

    def images(self, content_type: str) -> list[Upload]:
        """Return the images in it. Raises Refused for another type, or a form that is none."""
        kind, options = parse_options_header(content_type)
        name = kind.decode("latin-1")
        if name.startswith(PLAIN):
            found = [Upload(None, bytes(self.content))]
        elif name == FORM:
            found = _parts(bytes(self.content), options.get(b"boundary"), self._intake.limits)
        else:
            shown = f"'{name[:100]}'" if name else "nothing"
            raise Refused(
                415,
                f"Content-Type is {shown}; send an image as image/jpeg, image/png and so on, "
                f"or images as {FORM}",
            )
        if not found:
            raise Refused(400, "the form holds no file; send at least one image")
        return found


def _parts(content: bytes, boundary: bytes | None, limits: Limits) -> list[Upload]:
    """Return the files of a form; fields that are no files are passed over."""
    if not boundary:
        raise Refused(400, f"Content-Type is {FORM} without a boundary")
    files: list[Upload] = []
    parts = 0
    header, value = bytearray(), bytearray()
    pieces: list[bytes] | None = None  # of the file that is read, None in other parts

    def begin() -> None:
        nonlocal parts, pieces
        parts, pieces = parts + 1, None
        if parts > limits.images:
            raise Refused(400, f"the form has more than {limits.images} parts, the most allowed")

    def header_end() -> None:
        nonlocal pieces
        if bytes(header).lower() == b"content-disposition":
            _, said = parse_options_header(bytes(value))
            if b"filename" in said:
                files.append(Upload(said[b"filename"].decode(errors="replace"), b""))
                pieces = []
        header.clear()
        value.clear()

    def data(some: bytes, start: int, end: int) -> None:
        if pieces is not None:
            pieces.append(some[start:end])

    def end() -> None:
        if pieces is not None:
            files[-1].data = b"".join(pieces)

    ended = False

    def all_ended() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": lambda some, start, end: header.extend(some[start:end]),
                "on_header_value": lambda some, start, end: value.extend(some[start:end]),
                "on_header_end": header_end,
                "on_part_data": data,
                "on_part_end": end,
                "on_end": all_ended,
            },
        )
        parser.write(content)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, f"the form can not be read ({error})") from None
    if not ended:
        raise Refused(400, "the form can not be read (its last boundary is missing)")
    return files


def _too_large(limits: Limits) -> Refused:
    return Refused(
        413, f"the request is larger than {limits.body / 2**20:g} MiB, the most that is taken"
    )
