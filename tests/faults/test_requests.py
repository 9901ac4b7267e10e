"""Hostile requests: each limit has its status and sentence, and honest callers are served."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.service import FORM, PNG, Service, command, form, picture, served
from support.systems import LINUX
from thawnet.bundle.model import Model
from thawnet.commands.serve import ServeOptions
from thawnet.core.memory import used_memory
from thawnet.serve import connection
from thawnet.serve.app import Settings, make_app
from thawnet.serve.batching import Batcher
from thawnet.serve.intake import Limits

KILO = 1024
SECURITY = Path(__file__).resolve().parents[2] / "SECURITY.md"


def talk(
    service: Service, *pieces: bytes, pause: float = 0.0, finish: bool = False, strict: bool = False
) -> bytes:
    """Send pieces over a connection of its own, then read, and return all that comes back.

    finish: close the sending half of the connection after the last piece. strict: an answer has to
    come through whole; otherwise the service may close the connection at any moment.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as line:
        with contextlib.nullcontext() if strict else contextlib.suppress(OSError):
            for piece in pieces:
                line.sendall(piece)
                time.sleep(pause)
            if finish:
                line.shutdown(socket.SHUT_WR)
        with contextlib.nullcontext() if strict else contextlib.suppress(ConnectionError):
            while some := line.recv(65536):
                answer += some
    return answer


@contextlib.contextmanager
def connections(service: Service, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as opened:
        address = ("127.0.0.1", service.port)
        yield [opened.enter_context(socket.create_connection(address)) for _ in range(count)]


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


def test_too_large_a_request_is_refused_by_its_length_alone_and_a_large_file_in_a_form_too(
    serving: Callable[..., Service],
) -> None:
    service = serving(limits=Limits(body=100 * KILO))
    said = talk(service, HEAD + b"Content-Length: 10000000\r\nConnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 0.0976562 MiB" in said
    assert service.ask("POST", "/predict", picture("red"), PNG).status == 200
    reply = service.ask("POST", "/predict", form(("big.png", bytes(200 * KILO))), FORM)
    assert reply.status == 413, reply.body


@pytest.mark.skipif(sys.platform != "linux", reason="what other systems count is the most so far")
def test_gigabyte_without_a_length_is_refused_and_not_held(service: Service) -> None:
    before = used_memory()
    with contextlib.suppress(OSError):  # it was answered, and closed, long before its end
        gigabyte = itertools.repeat(bytes(64 * KILO), 16 * KILO)
        reply = service.ask("POST", "/predict", gigabyte, PNG)
        assert reply.status == 413, reply.body
    assert used_memory() - before < 100 * KILO * KILO
    assert service.ask("POST", "/predict", picture("red"), PNG).status == 200


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
    with connections(service, 500) as silent:
        begun = time.monotonic()
        assert service.ask("POST", "/predict", picture("red"), PNG).status == 200
        assert time.monotonic() - begun < 2
        time.sleep(0.2)
        silent[0].settimeout(2)
        assert silent[0].recv(1) == b""  # the longest silent one made room


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
def test_what_is_no_http_is_refused_and_logs_nothing(
    service: Service, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = talk(service, said, finish=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert b"Traceback" not in answer
    if said.endswith((b"\x02\r\n\r\n", b"zz\r\n")):  # however much follows
        for more in (bytes(3000 * KILO), b"x"):
            assert talk(service, said + more, strict=True).startswith(b"HTTP/1.1 400 ")
    assert service.ask("GET", "/healthz").status == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


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
    with connections(service, 2) as lines:
        for line in lines:
            line.sendall(HEAD + b"Content-Length: 10\r\n\r\n")
        time.sleep(0.3)
        reply = service.ask("POST", "/predict", picture("red"), PNG)
        assert reply.status == 503
        assert reply.headers["retry-after"] == "1"
        assert "2 requests are under way" in reply.json["error"]
        assert service.ask("GET", "/healthz").status == 200
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
    head += b"Connection: close\r\n"
    for size in (200 * KILO, 5000 * KILO):  # the first is read before the answer, but for a 413
        if chunked:
            said = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size
            said += bytes(size) + b"\r\n0\r\n\r\n"
        else:
            said = head + b"Content-Length: %d\r\n\r\n" % size + bytes(size)
        answer = talk(guarded, said, strict=True)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.endswith(b'"}')


WHOLE = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def test_small_refused_body_leaves_the_connection_usable(guarded: Service) -> None:
    said = talk(
        guarded,
        HEAD + b"Content-Length: 10\r\n\r\n",
        b"01234",
        b"56789",
        WHOLE,
        pause=0.05,
        strict=True,
    )
    assert said.count(b"HTTP/1.1 ") == 2
    assert said.startswith(b"HTTP/1.1 401 ")
    assert said.endswith(b'{"status":"ok"}')


@pytest.mark.slow
def test_connection_is_kept_longer_than_a_proxy_waits_between_requests(service: Service) -> None:
    said = talk(
        service, WHOLE.replace(b"Connection: close\r\n", b""), WHOLE, pause=6.5, strict=True
    )
    assert said.count(b"HTTP/1.1 200 ") == 2


def test_answer_before_a_large_body_is_the_last_one_and_says_so(guarded: Service) -> None:
    head = HEAD + b"Content-Length: 5000000\r\n\r\n"
    for pieces in ([head], [head + bytes(5000000) + WHOLE]):
        said = talk(guarded, *pieces, strict=True)
        assert said.count(b"HTTP/1.1 ") == said.count(b"HTTP/1.1 401 ") == 1
        assert b"connection: close\r\n" in said


@pytest.mark.parametrize("more", [b"\r\n01234", b"Expect: 100-continue\r\n\r\n"])
def test_body_that_does_not_come_is_not_waited_for(
    guarded: Service, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    if b"Expect" not in more:  # who asks before it sends is refused at once
        monkeypatch.setattr(connection, "DRAIN_SECONDS", 0.2)
    begun = time.monotonic()
    said = talk(guarded, HEAD + b"Content-Length: 1000\r\n" + more, strict=True)
    assert time.monotonic() - begun < 2
    assert said.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in said


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


def test_client_that_reads_nothing_is_cut(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "UNREAD", 0.3)
    many = (
        b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1_000_000
    )  # 45 MB, more than any buffer
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(20)
        line.connect(("127.0.0.1", service.port))
        begun = time.monotonic()
        with pytest.raises(ConnectionError):  # and no TimeoutError
            line.sendall(many)
        assert time.monotonic() - begun < 10
    assert service.ask("GET", "/healthz").status == 200


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
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_times_and_numbers_go_with_those_of_others(model: Model) -> None:
    config = connection.Server(make_app(model, Settings("colours"))).config
    assert config.timeout_keep_alive > 60  # seconds that nginx and other proxies keep theirs
    assert Limits().seconds < connection.SECONDS <= 60  # the body's limit answers first
    assert connection.MOST < 1024  # open files that a process may have


@pytest.mark.slow  # 600 MB through a service of its own
@LINUX
def test_many_large_photos_at_once_are_held_once_and_their_memory_is_given_back(
    bundle: Path,
) -> None:
    photo = b"no image" + bytes(4_800_000)
    body = form(("photo.jpg", photo))

    def post(_number: int) -> int:
        try:
            return service.ask("POST", "/predict", body, FORM).status
        except OSError:  # it was refused before all was sent
            return 503

    with command("--model", bundle, "--workers", 1) as (service, job):

        def memory(name: str) -> int:
            (line,) = re.findall(
                rf"{name}:\s+(\d+) kB", Path(f"/proc/{job.pid}/status").read_text()
            )
            return int(line) * KILO

        assert post(0) == 422
        before = memory("VmRSS")
        with ThreadPoolExecutor(128) as pool:
            statuses = set(pool.map(post, range(128)))
        assert statuses == {422, 503}
        assert memory("VmHWM") < before + 1.6 * Limits().total
        assert memory("VmRSS") < before + 100 * KILO**2
