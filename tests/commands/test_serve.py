"""The command `serve`: wrong calls in a sentence, a clean stop, the same answers as `predict`."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.commands import run_without
from support.service import FORM, PNG, Reply, Service, command, form, picture
from support.shared import CIFAR
from support.systems import LINUX, POSIX
from thawnet.cli import main
from thawnet.commands.serve import ServeOptions, address_of, origin_of, serve
from thawnet.core import packages
from thawnet.core.errors import UsageError

pytest.importorskip("fastapi", reason="the packages of thawnet[serve] are not installed")


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_printed_address_can_be_opened(host: str) -> None:
    with socket.create_server((host, 0)) as listening:
        address = urlsplit(address_of(listening))
        assert address.hostname not in (None, "0.0.0.0")
        socket.create_connection((address.hostname, address.port), timeout=10).close()


def test_all_addresses_are_those_of_both_families() -> None:
    from thawnet.serve.connection import listen

    try:
        listening = listen("::", 0)
    except OSError:
        pytest.skip("needs IPv6")
    with listening:
        address = urlsplit(address_of(listening))
        socket.create_connection((address.hostname, address.port), timeout=10).close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@POSIX
def test_stop_finishes_what_was_taken(bundle: Path, number: signal.Signals) -> None:
    large = picture("red", (900, 900))
    body = form(*[(f"{n}.png", large) for n in range(60)])
    replies: list[Reply] = []
    with command("--model", bundle, "--workers", 1) as (service, job):
        assert service.ask("GET", "/healthz").json == {"status": "ok"}
        asking = threading.Thread(
            target=lambda: replies.append(service.ask("POST", "/predict", body, FORM))
        )
        asking.start()
        while b"under_way 1.0" not in service.ask("GET", "/metrics").body:
            time.sleep(0.01)
        job.send_signal(number)
        asking.join(60)
        assert job.wait(60) == 0
        assert job.stderr is not None
        assert "every request that was accepted is answered" in job.stderr.read()
    assert [reply.status for reply in replies] == [200]
    assert len(replies[0].json["images"]) == 60


def keep_asking(service: Service, stopped: threading.Event) -> str:
    """Ask on one connection until an answer is the last one; return how it ended."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    body = picture("red")
    try:
        while not stopped.is_set():
            connection.request("POST", "/predict", body, PNG)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                return f"status {answer.status}"
            if answer.headers["connection"] == "close":
                return "told"
    except OSError as error:
        return repr(error)
    finally:
        connection.close()
    return "well"


@POSIX
def test_stop_is_announced_on_connections_that_are_kept(bundle: Path) -> None:
    with command("--model", bundle) as (service, job), ThreadPoolExecutor(16) as pool:
        assert service.ask("GET", "/healthz").status == 200
        idle = socket.create_connection(("127.0.0.1", service.port), timeout=10)
        ended = [pool.submit(keep_asking, service, threading.Event()) for _ in range(16)]
        time.sleep(0.5)
        job.send_signal(signal.SIGTERM)
        assert [asking.result() for asking in ended] == ["told"] * 16
        with idle:
            assert idle.recv(1) == b""
            idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert idle.recv(1) == b""  # and no reset: it is known that nothing was done
        assert job.wait(20) == 0


def children(parent: int) -> list[int]:
    """Return the processes that a process has started."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                pids.append(int(stat.parent.name))
    return pids


@LINUX
def test_worker_that_is_killed_costs_no_request_and_one_line(bundle: Path) -> None:
    stopped = threading.Event()
    with (
        command("--model", bundle, "--workers", 2) as (service, job),
        ThreadPoolExecutor(8) as pool,
    ):
        ended = [pool.submit(keep_asking, service, stopped) for _ in range(8)]
        time.sleep(0.5)
        worker = next(
            pid
            for pid in children(job.pid)
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(worker, signal.SIGKILL)
        time.sleep(1)
        stopped.set()
        assert [asking.result() for asking in ended] == ["well"] * 8
        job.terminate()
        assert job.wait(20) == 0
        assert job.stderr is not None
        assert job.stderr.read().splitlines() == [
            "a worker process ended (exit status -9); another one is started",
            "stopped; every request that was accepted is answered",
        ]


def test_token_may_come_from_the_environment(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAWNET_TOKEN", "sesame")
    with command("--model", bundle) as (service, _job):
        assert service.ask("GET", "/model").status == 401
        right = {"Authorization": "Bearer sesame"}
        assert service.ask("GET", "/model", headers=right).json["name"] == bundle.parent.name


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (ServeOptions(port=70000), "--port 70000: must be 0 to 65535"),
        (ServeOptions(workers=0), "--workers 0: must be at least 1"),
        (ServeOptions(max_mb=0), "--max-mb 0: must be 1 to 1024"),
        (ServeOptions(host="0.0.0.0"), "--host 0.0.0.0 lets other machines ask: set"),
        (ServeOptions(examples=Path("nowhere")), "--examples 'nowhere': No such file"),
        (ServeOptions(examples=Path()), "no image files in it"),
        (ServeOptions(host="256.1.1.1", insecure=True), "--host 256.1.1.1"),
    ],
)
def test_wrong_call_is_one_sentence(options: ServeOptions, sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        serve(options)


def test_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match="the port is in use; choose another"):
            serve(ServeOptions(port=port))


def test_missing_bundle_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--model", "nowhere"]) == 1
    assert "'nowhere': no such folder" in capsys.readouterr().err


def test_missing_package_is_answered_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "missing", lambda _names: ["fastapi"])
    with pytest.raises(UsageError, match=re.escape("(fastapi): pip install 'thawnet[serve]'")):
        serve(ServeOptions())


def test_serving_needs_no_torch(bundle: Path) -> None:
    code = """
import threading, urllib.request
from pathlib import Path
from thawnet.bundle.model import load
from thawnet.serve.app import Settings, make_app
from thawnet.serve.connection import Server, listen
model = load(Path(sys.argv[1]))
listening = listen("127.0.0.1", 0)
server = Server(make_app(model, Settings("x")))
thread = threading.Thread(target=server.run, args=([listening],))
thread.start()
port = listening.getsockname()[1]
request = urllib.request.Request(
    f"http://127.0.0.1:{port}/predict?explain=true",
    Path(sys.argv[2]).read_bytes(),
    {"Content-Type": "image/png"},
)
print(urllib.request.urlopen(request).read().decode())
server.should_exit = True
thread.join()
"""
    image = Path("one.png")
    image.write_bytes(picture("blue"))
    done = run_without(["torch", "timm", "safetensors", "onnx"], code, bundle, image)
    assert done.returncode == 0, done.stderr
    assert '"maps"' in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.exists(), reason="there is no ../shared/data/cifar100")
def test_thousand_real_images_get_the_class_that_predict_gives_them() -> None:
    import pyarrow.parquet as pq

    from thawnet.bundle.model import load

    (shard,) = CIFAR.glob("test-*.parquet")
    cells = pq.read_table(shard, columns=["img"])["img"].slice(0, 1000).to_pylist()
    images = [cell["bytes"] for cell in cells]
    expected = [answer.classes[0] for answer in load().predict(images, 1)]
    named: list[str] = []
    with command() as (service, _job):
        for first in range(0, 1000, 50):
            some = [(f"{n}.png", data) for n, data in enumerate(images[first : first + 50])]
            reply = service.ask("POST", "/predict?top_k=1", form(*some), FORM)
            named += [image["predictions"][0]["class"] for image in reply.json["images"]]
        assert service.ask("POST", "/predict", images[0], PNG).status == 200
    assert named == expected


@pytest.mark.slow
def test_schemathesis_finds_no_unexpected_status(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    # A body that is none of an image is 422 by design, which no schema can say.
    settings = tmp_path / "schemathesis.toml"
    settings.write_text('[checks]\npositive_data_acceptance.expected-statuses = ["2xx", 422]\n')
    with command() as (service, _job):
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", settings),
                *("run", f"http://127.0.0.1:{service.port}/openapi.json"),
                *("--max-examples", "200", "--seed", "1"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--public-url", "photos.example.org"], "expected an address as https://example.org"),
        (["--public-url", "https://[x"], "expected an address as https://example.org"),
        (["--public-url", "https://me@x.org", "--insecure"], "expected an address as"),
        (["--allow-origin", "null"], "--allow-origin 'null': expected an address as"),
        (["--token", "caf\u00e9"], "only ASCII letters, digits, signs and blanks can be sent"),
        (["--public-url", "https://x.org/photos"], "https://x.org/photos lets other machines ask"),
    ],
)
def test_addresses_of_a_proxy_are_checked_before_anything_is_served(
    capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["serve", *flags]) == 2
    assert message in capsys.readouterr().err


def test_origin_is_an_address_without_its_path() -> None:
    assert origin_of("https://Photos.example.org:8443/classify/") == (
        "https://photos.example.org:8443"
    )
    assert origin_of("http://[::1]:80/") == "http://[::1]"
    assert origin_of("https://b\u00fccher.example:443") == "https://xn--bcher-kva.example"
