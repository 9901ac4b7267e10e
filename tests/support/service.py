"""What tests send to a service on loopback, and what comes back."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from support.bundles import COLOURS
from support.photos import encoded

if TYPE_CHECKING:
    from thawnet.bundle.model import Model

BOUNDARY = "edge"


def picture(colour: str, size: tuple[int, int] = (40, 40), format: str = "PNG") -> bytes:
    """Return an encoded image of one colour."""
    return encoded(Image.new("RGB", size, COLOURS[colour]), format)


def form(*parts: tuple[str | None, bytes]) -> bytes:
    """Return a multipart body of (file name, content)."""
    body = b""
    for name, content in parts:
        file = "" if name is None else f'; filename="{name}"'
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"{file}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
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


@contextmanager
def served(network: Model, **changes: Any) -> Iterator[Service]:
    """Run a service with some settings changed, on a free port."""
    pytest.importorskip("fastapi", reason="the packages of thawnet[serve] are not installed")
    from thawnet.serve.app import Settings, make_app
    from thawnet.serve.connection import Server, listen

    listening = listen("127.0.0.1", 0)
    server = Server(make_app(network, replace(Settings("colours"), **changes)))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield Service(listening.getsockname()[1])
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


@contextmanager
def command(*arguments: object) -> Iterator[tuple[Service, subprocess.Popen[str]]]:
    """Run the real command on a free port; yield it when it says where it serves."""
    words = [sys.executable, "-m", "thawnet", "serve", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as job:
        assert job.stderr is not None
        try:
            message = ""
            while not (address := re.search(r"serving at http://127\.0\.0\.1:(\d+)", message)):
                line = job.stderr.readline()
                assert line, message
                message += line
            yield Service(int(address[1])), job
        finally:
            job.kill()
