"""Images by address, from a real server on loopback: whole and inside limits, or a reason."""

from __future__ import annotations

import http.server
import time
from collections.abc import Iterator

import pytest

from support.web import serving_forever
from thawnet.core.errors import ImageError
from thawnet.data.paths import is_address
from thawnet.net import image
from thawnet.net.image import fetch_image

CONTENT = bytes(range(256)) * 512


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the path says."""

    def do_GET(self) -> None:
        manner = self.path.strip("/").removesuffix("?of=gr%C3%B6%C3%9Fe%201")
        if manner == "missing":
            self.send_error(404)
            return
        if manner.startswith("to-"):
            self.send_response(302)
            self.send_header(
                "Location", {"to-file": "file:///etc/passwd", "to-whole": "/whole"}[manner]
            )
            self.end_headers()
            return
        self.send_response(200)
        if manner != "endless":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        try:
            if manner == "whole":
                self.wfile.write(CONTENT)
            elif manner == "cut":
                self.wfile.write(CONTENT[: len(CONTENT) * 6 // 10])
            elif manner == "endless":
                while True:
                    self.wfile.write(CONTENT)
            elif manner == "silent":
                time.sleep(2)
            elif manner == "dripping":
                for value in CONTENT:
                    self.wfile.write(bytes([value]))
                    time.sleep(0.05)
        except OSError:  # whoever asked has gone
            return

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving_forever(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        yield address


@pytest.mark.parametrize("path", ["whole", "to-whole", "whole?of=größe 1"])
def test_content_comes_whole(server: str, path: str) -> None:
    assert fetch_image(f"{server}/{path}") == CONTENT


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("missing", "the server answered 404"),
        ("to-file", "Redirection to url 'file:///etc/passwd' is not allowed"),
        ("cut", "cut short: 52,429 bytes of it did not come"),
        ("endless", "more than 1 MB came from there"),
        ("silent", "the server said nothing for 0 s"),
        ("dripping", "not there after 1 s"),
    ],
)
def test_anything_else_is_a_reason(
    server: str, path: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "MAX_BYTES", 10**6)
    monkeypatch.setattr(image, "SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(image, "MOST_SECONDS", 0.6)
    with pytest.raises(ImageError, match=told) as caught:
        fetch_image(f"{server}/{path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["http://b/image.jpg", "ftp://b/image.jpg"])
def test_nothing_is_fetched_by_a_weaker_way_than_was_asked_for(target: str) -> None:
    with pytest.raises(ImageError, match="an address of another kind"):
        image._check_redirect("https://a/image.jpg", target)


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:1/a.jpg", "https://no.such.host.invalid/a", "http://[/"],
)
def test_address_without_a_server_is_a_reason(address: str) -> None:
    with pytest.raises(ImageError, match="cannot be fetched"):
        fetch_image(address)


@pytest.mark.parametrize(
    "name", ["a.jpg", "file:///a.jpg", "ftp://host/a.jpg", "C:/http://a", "data:,"]
)
def test_other_names_are_no_addresses(name: str) -> None:
    assert not is_address(name)
    with pytest.raises(ImageError):
        fetch_image(name)
