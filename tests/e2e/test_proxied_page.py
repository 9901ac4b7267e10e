"""The page behind a proxy that speaks TLS, as README says: a real nginx, a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from support import nginx
from support.exported_pages import ROCKET
from support.service import served
from support.watched_pages import launched
from thawnet.bundle.model import Model
from thawnet.commands.serve import origin_of

NAME = "photos.example.org"


@nginx.NEEDED
@pytest.mark.parametrize("prefix", ["", "/classify"])
@pytest.mark.parametrize("passed", ["", "proxy_set_header Host $http_host;"])
def test_page_behind_a_proxy_that_speaks_tls_answers(
    chromium: Browser, embedded_model: Model, tmp_path: Path, prefix: str, passed: str
) -> None:
    port = nginx.free_port()
    public = f"https://{NAME}:{port}{prefix}"
    with served(embedded_model, public=origin_of(public)) as service:
        location = f"proxy_pass http://127.0.0.1:{service.port}/; {passed}"
        server = f"client_max_body_size 32m; location {prefix}/ {{ {location} }}"
        with nginx.running(tmp_path, port, server, name=NAME):
            # A browser of its own, as names are looked up by its flags.
            browser = launched(chromium.browser_type, f"--host-resolver-rules=MAP {NAME} 127.0.0.1")
            page = browser.new_context(ignore_https_errors=True).new_page()
            page.goto(f"{public}/")
            page.set_input_files("#files", [ROCKET])
            expect(page.locator(".card .best .name")).to_have_text("rocket")
            browser.close()
