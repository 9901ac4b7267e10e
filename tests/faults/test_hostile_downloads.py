"""Servers that cheat the hub's client, and addresses that never come to an end.

Files by address, cut, wrong, redirected, dripping, or asked for twice: tests/net/test_published.py.
"""

from __future__ import annotations

import http.server
import socket
import socketserver
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from support.hub import SHA, HubHandler, set_endpoint, shard
from support.web import serving_forever
from thawnet.core.errors import ImageError
from thawnet.net import image
from thawnet.net.http import FetchError
from thawnet.net.hub import fetch_shards
from thawnet.net.image import fetch_image

NAME = "plain_text/train-00000-of-00001.parquet"

Answer = Callable[[socket.socket], None]


@pytest.fixture
def answering() -> Iterator[Callable[[Answer], str]]:
    """Return a function that answers every connection so, after its request, and its address."""
    with ExitStack() as running:

        def start(answer: Answer) -> str:
            class Handler(socketserver.BaseRequestHandler):
                def handle(self) -> None:
                    self.request.recv(2**16)
                    with suppress(OSError):  # the client has gone
                        answer(self.request)

            server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
            return running.enter_context(serving_forever(server))

        yield start


def dripping(head: bytes, drop: bytes) -> Answer:
    """Return an answer that begins at once and goes on by a drop, for 10 s."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(200):
            connection.sendall(drop)
            time.sleep(0.05)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"HTTP", b"x"),  # a status line without an end
        (OK, b"X"),  # a header
        (OK + b"X: 1\r\n", b"a: b\r\n"),  # headers
        (CHUNKED, b"0"),  # the length of a chunk
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"t"),  # a trailer
        (OK + b"Content-Length: 10000\r\n\r\n", b"x"),  # the content
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_address_that_drips_anything_is_given_up(
    answering: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch, head: bytes, drop: bytes
) -> None:
    monkeypatch.setattr(image, "MOST_SECONDS", 0.5)
    url = answering(dripping(head, drop))
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"not complete after 0 s|cannot be fetched"):
        fetch_image(url)
    assert time.monotonic() - started < 3


def test_redirects_without_end_are_given_up(answering: Callable[[Answer], str]) -> None:
    url = answering(lambda it: it.sendall(b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n"))
    with pytest.raises(ImageError, match="infinite loop"):
        fetch_image(url)


def test_reason_that_a_server_gives_is_one_line_without_codes(
    answering: Callable[[Answer], str],
) -> None:
    url = answering(lambda it: it.sendall(b"HTTP/1.1 404 \x1b[2Jgone\x07\r\n\r\n"))
    with pytest.raises(ImageError, match=r"the server answered 404 \?\[2Jgone\?") as caught:
        fetch_image(url)
    assert str(caught.value).isprintable()


# --- the hub --------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Serve a hub on this machine whose `manner` decides how a file comes."""
    from huggingface_hub import constants

    class Hub(HubHandler):
        manner: ClassVar[str] = "whole"
        files: ClassVar[dict[str, bytes]] = {NAME: shard(400)}
        asked: ClassVar[list[str]] = []

        def answer(self, content: bytes, etag: str = "") -> None:
            if self.command != "GET" or not etag or self.manner == "whole":
                super().answer(content, etag)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", SHA)
            self.send_header("ETag", f'"{etag}"')
            self.end_headers()
            if self.manner == "cut":
                self.wfile.write(content[: len(content) * 6 // 10])
            elif self.manner == "wrong length":
                self.wfile.write(content[:-1])
            elif self.manner == "drip":
                with suppress(OSError):
                    for byte in content[:200]:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.05)

    with serving_forever(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)) as address:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        set_endpoint(monkeypatch, address)
        yield Hub


@pytest.mark.slow
@pytest.mark.parametrize("manner", ["cut", "wrong length", "drip"])
def test_what_the_hub_sends_in_part_is_never_used_and_the_next_attempt_works(
    hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, manner: str
) -> None:
    monkeypatch.setattr("thawnet.net.http.STALL_SECONDS", 0.5)
    monkeypatch.setattr(hub, "manner", manner)
    started = time.monotonic()
    with pytest.raises(FetchError) as caught:
        fetch_shards("uoft-cs/cifar10")
    assert time.monotonic() - started < 30
    assert str(caught.value).isprintable()
    assert list((tmp_path / "hub").rglob("*.parquet")) == []
    monkeypatch.setattr(hub, "manner", "whole")
    (parquet,) = fetch_shards("uoft-cs/cifar10").glob("*.parquet")
    assert parquet.read_bytes() == hub.files[NAME]
