"""The page behind a proxy that speaks TLS, set up as in docs/serve.md: nginx and a browser."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from support import nginx
from support.documents import only_block
from support.exported_pages import ROCKET
from support.photos import encoded
from support.service import served
from support.watched_pages import launched
from thawnet.bundle.model import Model
from thawnet.commands.serve import origin_of

NAME = "photos.example.org"


def server(port: int, prefix: str, passed: str) -> str:
    """Return the docs' nginx block for a service on a port, without what nginx.running adds."""
    lines = only_block("docs/serve.md", "nginx").splitlines()[1:-1]
    own = [line for line in lines if not re.match(r" *(listen|server_name|ssl_)", line)]
    text = "\n".join(own)
    for old, new in (
        ("location /", f"location {prefix}/"),
        ("http://127.0.0.1:8000/;", f"http://127.0.0.1:{port}/; {passed}"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


@nginx.NEEDED
@pytest.mark.parametrize("prefix", ["", "/flowers"])
@pytest.mark.parametrize("passed", ["", "proxy_set_header Host $http_host;"])
def test_page_behind_a_proxy_that_speaks_tls_answers(
    chromium: Browser, embedded_model: Model, tmp_path: Path, prefix: str, passed: str
) -> None:
    port = nginx.free_port()
    public = f"https://{NAME}:{port}{prefix}"
    with ExitStack() as running:
        service = running.enter_context(served(embedded_model, public=origin_of(public)))
        lines = server(service.port, prefix, passed)
        running.enter_context(nginx.running(tmp_path, port, lines, name=NAME))
        # A browser of its own, as names are looked up by its flags.
        browser = launched(chromium.browser_type, f"--host-resolver-rules=MAP {NAME} 127.0.0.1")
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(f"{public}/")
        photo = encoded(Image.open(ROCKET).resize((1600, 1070)), "BMP")
        assert len(photo) > 2**20  # the limit that nginx has by default
        file = {"name": "photo.bmp", "mimeType": "image/bmp", "buffer": photo}
        page.set_input_files("#files", [file])
        expect(page.locator(".card .best .name")).to_have_text("rocket")
        browser.close()
