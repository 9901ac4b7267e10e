"""Reading the images of a request, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

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
    """Limits of one request, and of all together."""

    body: int = 32 * 2**20
    """Bytes of a request."""
    images: int = 64
    """Images of a request, or parts of its form."""
    seconds: float = 30.0
    """Seconds to receive a request's body."""
    requests: int = 256
    """Requests in progress at once."""
    total: int = 256 * 2**20
    """Bytes of all bodies in memory."""


@dataclass
class Upload:
    """One image as it was sent."""

    name: str | None
    """The file's name, if it has one."""
    data: bytearray = field(default_factory=bytearray)
    """Its bytes; nothing else refers to them."""


@dataclass
class Intake:
    """Admits requests, counting them and the bytes of their bodies in memory."""

    limits: Limits
    requests: int = field(default=0, init=False)
    held: int = field(default=0, init=False)

    @contextmanager
    def room(self) -> Iterator[Body]:
        """Yield the body of a request, which counts as in progress until the block is left.

        Raises Busy if too many are in progress.
        """
        if self.requests >= self.limits.requests:
            raise Busy(f"{self.requests:,} requests are under way already")
        body = Body(self)
        self.requests += 1
        try:
            yield body
        finally:
            self.requests -= 1
            body.drop()


class Body:
    """The body of one request, passed to a reader as it arrives."""

    def __init__(self, intake: Intake) -> None:
        self.size = 0  # bytes in memory
        self._intake = intake
        self._files: list[Upload] = []

    async def receive(self, request: Request, reader: Reader) -> None:
        """Read the whole body. Raises Refused if it is too large, too slow or cut off."""
        limits = self._intake.limits
        self._files = reader.files
        if int(request.headers.get("content-length", "0")) > limits.body:  # h11 has validated it
            raise _too_large(limits)
        try:
            async with asyncio.timeout(limits.seconds):
                async for chunk in request.stream():
                    self._count(len(chunk))
                    reader.write(chunk)
        except TimeoutError:
            raise Refused(
                408,
                f"{self.size:,} bytes came in {limits.seconds:g} seconds; the whole request "
                "must come in that time",
                {"Connection": "close"},
            ) from None
        except ClientDisconnect:
            raise Refused(400, "the request was cut off") from None

    def drop(self) -> None:
        """Free the files' bytes, even if a refusal's traceback still refers to the files."""
        for file in self._files:
            file.data = bytearray()
        self._intake.held -= self.size
        self.size = 0

    def _count(self, size: int) -> None:
        limits, intake = self._intake.limits, self._intake
        if self.size + size > limits.body:
            raise _too_large(limits)
        if intake.held + size > limits.total:
            raise Busy(f"{intake.held:,} bytes of other requests are held already")
        self.size += size
        intake.held += size


class Reader(Protocol):
    """Extracts images from the body of a request."""

    files: list[Upload]
    """The files read so far."""

    def write(self, chunk: bytes) -> None:
        """Parse the next bytes. Raises Refused if they are malformed."""

    def images(self) -> list[Upload]:
        """Return the images, once all bytes are written. Raises Refused if there are none."""


def reader_of(content_type: str, limits: Limits) -> Reader:
    """Return the reader of a content type. Raises Refused for one that holds no images."""
    kind, options = parse_options_header(content_type)
    name = kind.decode("latin-1")
    if name.startswith(PLAIN):
        return _Plain()
    if name == FORM:
        boundary = options.get(b"boundary")
        if not boundary:
            raise Refused(400, f"Content-Type is {FORM} without a boundary")
        return _Form(boundary, limits.images)
    shown = f"'{name[:100]}'" if name else "nothing"
    raise Refused(
        415,
        f"Content-Type is {shown}; send an image as image/jpeg, image/png and so on, or images "
        f"as {FORM}",
    )


class _Plain:
    """Reads a body that is one image."""

    def __init__(self) -> None:
        self.files = [Upload(None)]

    def write(self, chunk: bytes) -> None:
        self.files[0].data += chunk

    def images(self) -> list[Upload]:
        return self.files


class _Form:
    """Reads the files of a multipart form and ignores its other fields."""

    def __init__(self, boundary: bytes, most: int) -> None:
        """most: limit on the parts of the form."""
        self._most = most
        self._parts = 0
        self.files: list[Upload] = []
        self._header, self._value = bytearray(), bytearray()
        self._file: Upload | None = None  # the one being read, None in other parts
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_part_data": self._data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _unreadable(str(error)) from None

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _unreadable(str(error)) from None

    def images(self) -> list[Upload]:
        if not self._ended:
            raise _unreadable("its last boundary is missing")
        if not self.files:
            raise Refused(400, "the form holds no file; send at least one image")
        return self.files

    def _begin(self) -> None:
        self._parts += 1
        self._file = None
        if self._parts > self._most:
            raise Refused(400, f"the form has more than {self._most} parts, the most allowed")

    def _header_field(self, piece: bytes, start: int, end: int) -> None:
        self._header += piece[start:end]

    def _header_value(self, piece: bytes, start: int, end: int) -> None:
        self._value += piece[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            if b"filename" in options:
                self._file = Upload(options[b"filename"].decode(errors="replace"))
                self.files.append(self._file)
        self._header.clear()
        self._value.clear()

    def _data(self, piece: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.data += memoryview(piece)[start:end]

    def _end(self) -> None:
        self._ended = True


def _unreadable(reason: str) -> Refused:
    return Refused(400, f"the form cannot be read ({reason})")


def _too_large(limits: Limits) -> Refused:
    return Refused(
        413, f"the request is larger than {limits.body / 2**20:g} MiB, the most that is taken"
    )
