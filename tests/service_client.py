"""What tests send to a service on loopback, and what comes back."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

from PIL import Image

from conftest import encoded

COLOUR = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
BOUNDARY = "edge"


def picture(colour: str, size: tuple[int, int] = (40, 40), format: str = "PNG") -> bytes:
    """Return an encoded image of one colour."""
    return encoded(Image.new("RGB", size, COLOUR[colour]), format)


def form(*parts: tuple[str | None, bytes]) -> bytes:
    """Return a multipart body of (file name, content)."""
    body = b""
    for name, content in parts:
        file = "" if name is None else f'; filename="{name}"'
        body += (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"{file}\r\n\r\n'.encode()
        )
        body += content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
PNG = {"Content-Type": "image/png"}


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Service:
    """A running service."""

    port: int

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """Send one request and return the reply."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, named, answer.read())
        finally:
            connection.close()
