"""Behind nginx, every refusal reaches the client as it is, and nothing becomes 502."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support import nginx
from support.service import FORM, PNG, Service, form, picture
from thawnet.serve.intake import Limits

pytestmark = nginx.NEEDED

KILO = 1024
TOKEN = {"Authorization": "Bearer sesame"}
MIXED = form(*[(None, b"x")] * 65, ("a.png", bytes(500 * KILO)))
# Connections to the service that end with each request, as nginx has them unless it is told
# otherwise; that are kept; and that pass a body on while it comes.
KEPT = 'proxy_http_version 1.1; proxy_set_header Connection "";'
MANNERS = {"plain": "", "kept": KEPT, "streamed": f"{KEPT} proxy_request_buffering off;"}


@pytest.fixture
def behind_nginx(tmp_path: Path) -> Iterator[Callable[[Service, str], Service]]:
    """Return a function that puts nginx before a service."""
    with ExitStack() as jobs:

        def start(service: Service, manner: str) -> Service:
            port = nginx.free_port()
            upstream = f"upstream service {{ server 127.0.0.1:{service.port}; keepalive 16; }}"
            server = f"""location / {{
                proxy_pass http://service;
                proxy_set_header Host 127.0.0.1;
                {MANNERS[manner]}
            }}"""
            limit = "client_max_body_size 0;"
            jobs.enter_context(nginx.running(tmp_path, port, server, limit + upstream))
            return Service(port)

        yield start


@pytest.mark.parametrize("manner", MANNERS)
def test_refusals_pass_a_proxy(
    serving: Callable[..., Service], behind_nginx: Callable[[Service, str], Service], manner: str
) -> None:
    proxy = behind_nginx(serving(token="sesame", limits=Limits(body=2000 * KILO)), manner)
    allowed = {**PNG, **TOKEN}
    cases = [
        (401, "/predict", PNG, 300 * KILO),
        (401, "/predict", PNG, 3000 * KILO),
        (403, "/predict", {**allowed, "Origin": "http://elsewhere.example"}, 3000 * KILO),
        (404, "/nothing", allowed, 3000 * KILO),
        (405, "/model", allowed, 3000 * KILO),
        (413, "/predict", allowed, 3000 * KILO),
        (415, "/predict", {**TOKEN, "Content-Type": "text/plain"}, 3000 * KILO),
        (422, "/predict?top_k=0", allowed, 3000 * KILO),
    ]
    for status, path, headers, size in cases:
        body = bytes(size)
        for _ in range(4):
            for sent in (
                body,
                iter([body[: size // 2], body[size // 2 :]]),
            ):  # the second in chunks
                reply = proxy.ask("POST", path, sent, headers)
                assert (path, reply.status) == (path, status)
                assert "error" in reply.json
    assert proxy.ask("POST", "/predict", MIXED, {**FORM, **TOKEN}).status == 400
    assert proxy.ask("POST", "/predict", picture("red"), allowed).status == 200
    assert proxy.ask("HEAD", "/healthz").status == 200


def test_full_service_says_so_through_a_proxy(
    serving: Callable[..., Service], behind_nginx: Callable[[Service, str], Service]
) -> None:
    proxy = behind_nginx(serving(limits=Limits(requests=0)), "plain")
    for _ in range(10):
        reply = proxy.ask("POST", "/predict", bytes(3000 * KILO), PNG)
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
