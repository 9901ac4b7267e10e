"""Hostile requests: each limit has its status and sentence, and honest callers are served."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.service import FORM, PNG, Service, form, picture, served
from thawnet.bundle.model import Model
from thawnet.commands.serve import ServeOptions
from thawnet.serve import connection
from thawnet.serve.app import Settings, make_app
from thawnet.serve.batching import Batcher
from thawnet.serve.intake import Limits

KILO = 1024
SECURITY = Path(__file__).resolve().parents[2] / "SECURITY.md"


def talk(service: Service, *pieces: bytes, pause: float = 0.0, finish: bool = False) -> bytes:
    """Send pieces over a connection of its own and return all that comes back.

    finish: close the sending half of the connection after the last piece.
    """
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as line:
        try:
            for piece in pieces:
                line.sendall(piece)
                time.sleep(pause)
            if finish:
                line.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # closed on us: what came before is still to be read
        answer = b""
        try:
            while some := line.recv(65536):
                answer += some
        except ConnectionError:
            pass
        return answer


def memory() -> int:
    """Return this process's resident bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(KILO * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def chunks(total: int) -> Iterator[bytes]:
    """Yield so many bytes in pieces of 64 kB."""
    piece = bytes(64 * KILO)
    for _ in range(total // len(piece)):
        yield piece


@pytest.fixture(scope="module")
def guarded(model: Model) -> Iterator[Service]:
    """Yield a service that asks for a token and takes small bodies; the tests of a module share."""
    with served(model, token="sesame", limits=Limits(body=100 * KILO)) as service:
        yield service


HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"


def test_limits_are_those_that_are_written_down() -> None:
    usual = Limits()
    assert ServeOptions().max_mb * KILO * KILO == usual.body
    assert (
        f"**Requests are bounded too**: {usual.body // KILO**2} MiB (`--max-mb`), {usual.images} "
        f"images, {usual.seconds:g} s to come, {usual.requests} under way and "
        f"{Settings(name='').waiting:,} images waiting;\n  {usual.total // KILO**2} MiB of bodies"
    ) in SECURITY.read_text()


def test_too_large_a_request_is_refused_by_its_length_alone(
    serving: Callable[..., Service],
) -> None:
    service = serving(limits=Limits(body=100 * KILO))
    said = talk(service, HEAD + b"Content-Length: 10000000\r\nConnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 0.0976562 MiB" in said
    assert service.ask("POST", "/predict", picture("red"), PNG).status == 200


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_gigabyte_without_a_length_is_refused_and_not_held(service: Service) -> None:
    before = memory()
    with contextlib.suppress(OSError):  # it was answered, and closed, long before its end
        reply = service.ask("POST", "/predict", chunks(1000 * KILO * KILO), PNG)
        assert reply.status == 413, reply.body
    assert memory() - before < 100 * KILO * KILO
    assert service.ask("POST", "/predict", picture("red"), PNG).status == 200


def test_large_file_in_a_form_is_refused_too(serving: Callable[..., Service]) -> None:
    service = serving(limits=Limits(body=100 * KILO))
    reply = service.ask("POST", "/predict", form(("big.png", bytes(200 * KILO))), FORM)
    assert reply.status == 413, reply.body


def test_thousand_and_one_parts_are_refused(service: Service) -> None:
    reply = service.ask("POST", "/predict", form(*[(f"{n}.png", b"x") for n in range(1001)]), FORM)
    assert reply.status == 400
    assert "more than 64 parts" in reply.json["error"]
    fields = form(*[(None, b"x") for n in range(1001)])
    assert service.ask("POST", "/predict", fields, FORM).status == 400


def test_upload_that_trickles_is_refused_in_time(serving: Callable[..., Service]) -> None:
    service = serving(limits=Limits(seconds=0.5))
    begun = time.monotonic()
    pieces = [HEAD + b"Content-Length: 1000\r\n\r\n", *[b"x"] * 10]
    said = talk(service, *pieces, pause=0.1)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"the whole request must come in that time" in said
    assert time.monotonic() - begun < 5


def test_silent_and_half_said_requests_are_closed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SECONDS", 0.5)
    monkeypatch.setattr(connection, "KEEP_ALIVE", 0.5)
    begun = time.monotonic()
    assert talk(service) == b""
    assert talk(service, b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n") == b""
    # The second request of a connection too, whose first was answered.
    whole = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    said = talk(service, whole, b"GET /mod", b"e", b"l", b" ", pause=0.2)
    assert said.count(b"HTTP/1.1 200") == 1
    assert time.monotonic() - begun < 10


def test_honest_callers_are_served_beside_500_silent_connections(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST", 400)
    silent = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(500)]
    try:
        begun = time.monotonic()
        assert service.ask("POST", "/predict", picture("red"), PNG).status == 200
        assert time.monotonic() - begun < 2
        time.sleep(0.2)
        silent[0].settimeout(2)
        assert silent[0].recv(1) == b""  # the longest silent one made room
    finally:
        for each in silent:
            each.close()


def test_flood_of_headers_is_refused(service: Service) -> None:
    flood = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 900) for number in range(2000))
    said = talk(service, HEAD + flood + b"\r\n")
    assert said == b"" or said.startswith(b"HTTP/1.1 4")
    assert service.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%5capp.py",
        "/static//etc/passwd",
        "/examples/../../etc/passwd",
        "/examples/%2fetc%2fpasswd",
        "//etc/passwd",
        "/static/%00",
    ],
)
def test_paths_lead_nowhere_else(service: Service, path: str) -> None:
    reply = service.ask("GET", path)
    assert reply.status == 404
    assert reply.json == {"error": "there is nothing at this address"} or "example" in str(
        reply.json
    )


@pytest.mark.parametrize(
    "said",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"Content-Length: -5\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_refused(service: Service, said: bytes) -> None:
    answer = talk(service, said, finish=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert b"Traceback" not in answer
    assert service.ask("GET", "/healthz").status == 200


def test_form_with_odd_headers_is_read_or_refused(service: Service) -> None:
    odd = (
        b'--edge\r\nContent-Disposition: form-data; filename="a\x00\xff<b>.png"\r\n\r\n'
        + picture("red")
        + b"\r\n--edge--\r\n"
    )
    reply = service.ask("POST", "/predict", odd, FORM)
    assert reply.status in (200, 400)
    long = b"--edge\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--edge--\r\n"
    assert service.ask("POST", "/predict", long, FORM).status == 400
    wide = {"Content-Type": "multipart/form-data; boundary=" + "b" * 5000}
    assert service.ask("POST", "/predict", odd, wide).status == 400


def test_more_requests_than_allowed_are_told_to_come_back(
    serving: Callable[..., Service],
) -> None:
    service = serving(limits=Limits(requests=2))
    head = HEAD + b"Content-Length: 10\r\n\r\n"
    lines = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(2)]
    try:
        for line in lines:
            line.sendall(head)
        time.sleep(0.3)
        reply = service.ask("POST", "/predict", picture("red"), PNG)
        assert reply.status == 503
        assert reply.headers["retry-after"] == "1"
        assert "2 requests are under way" in reply.json["error"]
        assert service.ask("GET", "/healthz").status == 200
    finally:
        for line in lines:
            line.close()
    time.sleep(0.3)
    assert service.ask("POST", "/predict", picture("red"), PNG).status == 200


def test_bodies_held_together_have_a_limit(serving: Callable[..., Service]) -> None:
    service = serving(limits=Limits(total=100 * KILO))
    with socket.create_connection(("127.0.0.1", service.port)) as line:
        line.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + bytes(90_000))
        time.sleep(0.3)
        reply = service.ask("POST", "/predict", bytes(20 * KILO), PNG)
        assert reply.status == 503
    time.sleep(0.3)
    assert service.ask("POST", "/predict", bytes(20 * KILO), PNG).status == 422


def converse(service: Service, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send everything before reading what comes back; no connection error is forgiven."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as line:
        for piece in pieces:
            line.sendall(piece)
            time.sleep(pause)
        answer = b""
        while some := line.recv(65536):
            answer += some
        return answer


TOKEN = b"Authorization: Bearer sesame\r\n"
REFUSALS = [
    (401, HEAD),
    (403, HEAD + TOKEN + b"Origin: http://elsewhere.example\r\n"),
    (404, HEAD.replace(b"/predict", b"/nothing") + TOKEN),
    (405, HEAD.replace(b"/predict", b"/model") + TOKEN),
    (413, HEAD + TOKEN),
    (415, HEAD.replace(b"image/png", b"text/plain") + TOKEN),
    (422, HEAD.replace(b"/predict", b"/predict?top_k=0") + TOKEN),
]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("status", "head"), REFUSALS, ids=[str(status) for status, _head in REFUSALS]
)
def test_refusal_reaches_a_client_that_sends_everything_before_it_reads(
    guarded: Service, status: int, head: bytes, chunked: bool
) -> None:
    for size in (200 * KILO, 5000 * KILO):  # the first is read before the answer, but for a 413
        head_of_all, body = head + b"Connection: close\r\n", bytes(size)
        if chunked:
            said = head_of_all + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size
            said += body + b"\r\n0\r\n\r\n"
        else:
            said = head_of_all + b"Content-Length: %d\r\n\r\n" % size + body
        answer = converse(guarded, said)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.endswith(b'"}')


@pytest.mark.parametrize(
    "start", [b"\x00\x01\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"]
)
def test_what_is_no_http_is_told_so_and_logs_nothing(
    service: Service, caplog: pytest.LogCaptureFixture, start: bytes
) -> None:
    assert converse(service, start, bytes(3000 * KILO)).startswith(b"HTTP/1.1 400 ")
    assert converse(service, start + b"x").startswith(b"HTTP/1.1 400 ")
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


WHOLE = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def test_small_refused_body_leaves_the_connection_usable(guarded: Service) -> None:
    said = converse(
        guarded, HEAD + b"Content-Length: 10\r\n\r\n", b"01234", b"56789", WHOLE, pause=0.05
    )
    assert said.count(b"HTTP/1.1 ") == 2
    assert said.startswith(b"HTTP/1.1 401 ")
    assert said.endswith(b'{"status":"ok"}')


@pytest.mark.slow
def test_connection_is_kept_longer_than_a_proxy_waits_between_requests(service: Service) -> None:
    said = converse(service, WHOLE.replace(b"Connection: close\r\n", b""), WHOLE, pause=6.5)
    assert said.count(b"HTTP/1.1 200 ") == 2


def test_answer_before_a_large_body_is_the_last_one_and_says_so(guarded: Service) -> None:
    head = HEAD + b"Content-Length: 5000000\r\n\r\n"
    for pieces in ([head], [head + bytes(5000000) + WHOLE]):
        said = converse(guarded, *pieces)
        assert said.count(b"HTTP/1.1 ") == said.count(b"HTTP/1.1 401 ") == 1
        assert b"connection: close\r\n" in said


def test_client_that_asks_before_it_sends_is_refused_at_once(guarded: Service) -> None:
    begun = time.monotonic()
    said = converse(guarded, HEAD + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in said
    assert time.monotonic() - begun < connection.DRAIN_SECONDS


def test_body_that_does_not_come_is_not_waited_for(
    guarded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "DRAIN_SECONDS", 0.2)
    begun = time.monotonic()
    said = converse(guarded, HEAD + b"Content-Length: 1000\r\n\r\n01234")
    assert said.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in said
    assert time.monotonic() - begun < 2


def test_client_that_has_finished_sending_is_answered(service: Service) -> None:
    image = picture("red")
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(image)
    assert talk(service, head + image, finish=True).startswith(b"HTTP/1.1 200 ")


def test_closing_connection_does_not_wait_for_ever(
    guarded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SILENCE", 0.3)
    monkeypatch.setattr(connection, "LINGER", 0.6)
    for pause in (0.8, 0.1):  # one that says nothing more, and one that never stops
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as line:
            line.sendall(HEAD + b"Content-Length: 100000000\r\n\r\n")
            while line.recv(65536):
                pass
            begun = time.monotonic()
            with contextlib.suppress(ConnectionError):
                while time.monotonic() - begun < 10:
                    time.sleep(pause)
                    line.sendall(b"x")
            assert time.monotonic() - begun < 4


def test_failure_nobody_foresaw_is_the_last_answer_of_its_connection(
    serving: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    service = serving()

    monkeypatch.setattr(Batcher, "predict", fail)
    reply = service.ask("POST", "/predict", picture("red"), PNG)
    assert reply.status == 500
    assert reply.headers["connection"] == "close"


def test_reset_by_the_client_harms_nobody_else(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    for said in (WHOLE, HEAD + b"Content-Length: 5000000\r\n\r\n", b"\x00\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", service.port)) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.sendall(said)  # and closed with a reset
    time.sleep(0.1)
    assert service.ask("GET", "/healthz").status == 200
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


def test_times_and_numbers_go_with_those_of_others(model: Model) -> None:
    config = connection.Server(make_app(model, Settings("colours"))).config
    assert config.timeout_keep_alive > 60  # seconds that nginx and other proxies keep theirs
    assert Limits().seconds < connection.SECONDS <= 60  # the body's limit answers first
    assert connection.MOST < 1024  # open files that a process may have
