"""Images by address, from a real server on loopback: whole and inside limits, or a reason."""

from __future__ import annotations

import io
import urllib.request
from http.client import HTTPMessage

import pytest

from support.web import Raw, ok, serving_forever
from thawnet.core.errors import ImageError
from thawnet.net import http, image
from thawnet.net.image import fetch_image, is_address

CONTENT = bytes(range(256)) * 512


@pytest.mark.parametrize(
    ("path", "sent"), [("whole", "/whole"), ("whole?of=größe 1", "/whole?of=gr%C3%B6%C3%9Fe%201")]
)
def test_content_comes_whole(path: str, sent: str) -> None:
    server = Raw(ok(CONTENT))
    with serving_forever(server) as url:
        assert fetch_image(f"{url}/{path}") == CONTENT
    assert server.asked == [sent]


def test_redirect_is_followed() -> None:
    target = Raw(ok(CONTENT))
    with serving_forever(target) as url:
        redirect = Raw(f"HTTP/1.1 302 Found\r\nLocation: {url}/new\r\n\r\n".encode())
        with serving_forever(redirect) as old:
            assert fetch_image(old) == CONTENT
    assert target.asked == ["/new"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "the server answered 404"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
            "Redirection to url 'file:///etc/passwd' is not allowed",
        ),
        (ok(CONTENT)[: -len(CONTENT) // 2], "cut short: 65,536 bytes are missing"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(10**6 + 1), "the limit"),
    ],
)
def test_anything_else_is_a_reason(
    answer: bytes, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "MAX_BYTES", 10**6)
    with serving_forever(Raw(answer)) as url, pytest.raises(ImageError, match=told) as caught:
        fetch_image(url)
    assert "\n" not in str(caught.value)


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "SILENCE_SECONDS", 0.4)
    told = "the server said nothing for 0 s"
    with serving_forever(Raw(b"", pause=2)) as url, pytest.raises(ImageError, match=told):
        fetch_image(url)


@pytest.mark.parametrize("target", ["http://b/image.jpg", "ftp://b/image.jpg"])
def test_nothing_is_fetched_by_a_weaker_way_than_was_asked_for(target: str) -> None:
    request = urllib.request.Request("https://a/image.jpg")
    redirects = http._Redirects(lambda target: None)
    with pytest.raises(ValueError, match="it redirects from https to"):
        redirects.redirect_request(request, io.BytesIO(), 302, "Found", HTTPMessage(), target)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://127.0.0.1:1/a.jpg", "Connection refused"),
        ("https://no.such.host.invalid/a", ""),
        ("http://[/", "Invalid IPv6 URL"),
        ("http:///a.jpg", "no host given"),
    ],
)
def test_address_without_a_server_is_a_reason(address: str, told: str) -> None:
    with pytest.raises(ImageError, match=rf"^cannot be fetched \({told}.*\)$"):
        fetch_image(address)


@pytest.mark.parametrize(
    "name", ["a.jpg", "file:///a.jpg", "ftp://host/a.jpg", "C:/http://a", "data:,"]
)
def test_other_names_are_no_addresses(name: str) -> None:
    assert not is_address(name)
    with pytest.raises(ImageError):
        fetch_image(name)
