"""What comes over the network: whole and as published, or not at all, and never for long."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from support.hub import HubHandler, set_endpoint, shard
from support.published_cifar import COUNTS, files_of, pack, small
from support.web import serving_forever
from thawnet.core.cache import clear_cache
from thawnet.core.errors import DataError, DiskFullError, WeightsError
from thawnet.core.files import TEMPORARY, cache_entries
from thawnet.data.sources import cifar
from thawnet.data.sources.open import open_source
from thawnet.model.weights import load_weights
from thawnet.net import published
from thawnet.net.hub import fetch_shards
from thawnet.net.published import FetchError, Remote, fetch

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at any address in the way that `manner` says; `asked` lists the requests."""

    manner = "whole"
    content = CONTENT
    to = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what these tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.path)
        content = server.content
        if server.manner == "missing":
            self.send_error(404)
            return
        if server.manner == "redirect":
            self.send_response(302)
            self.send_header("Location", server.to)
            self.end_headers()
            return
        if server.manner == "silent":
            time.sleep(30)
            return
        self.send_response(200)
        if server.manner != "lengthless":
            self.send_header("Content-Length", str(len(content)))
        if server.manner == "encoded":
            self.send_header("Content-Encoding", "x-gzip")
        self.end_headers()
        if server.manner == "cut":
            content = content[: len(content) * 6 // 10]
        if server.manner == "lengthless":
            content = content[:-1]
        if server.manner == "drip":
            for position in range(100):
                self.wfile.write(content[position : position + 1])
                time.sleep(0.05)
            return
        if server.manner == "slow":
            time.sleep(1.5)
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are in `asked`."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    with serving_forever(made):
        monkeypatch.setenv("THAWNET_MIRROR", made.url)
        yield made


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the hub's client find nothing in its cache and nobody at its address."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    set_endpoint(monkeypatch, f"http://127.0.0.1:{port}")


def remote(content: bytes = CONTENT) -> Remote:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return Remote("https://example.invalid", "a.bin", f"md5:{digest}", len(content))


def nothing(text: str) -> None:
    """Tell nobody."""


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- one file -----------------------------------------------------------------------------------


def test_a_file_is_downloaded_once_and_checked_again_each_time(server: Server) -> None:
    told: list[str] = []
    path = fetch(remote(), told.append)
    assert path.read_bytes() == CONTENT
    assert fetch(remote(), told.append) == path
    assert (server.asked, len(told)) == (["/a.bin"], 1)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch(remote(), told.append).read_bytes() == CONTENT
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("manner", "told"),
    [
        ("cut", r"cut off after 180,000 of 300,000 bytes|IncompleteRead"),
        ("lengthless", "cut off after 299,999 of 300,000 bytes"),
        ("drip", r"it stalled: \d+ bytes in 1 s"),
        ("missing", "HTTP 404"),
        ("silent", "no answer within 1 s"),
    ],
)
def test_what_comes_in_part_or_not_leaves_nothing_and_the_next_attempt_works(
    server: Server, monkeypatch: pytest.MonkeyPatch, manner: str, told: str
) -> None:
    monkeypatch.setattr(published, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(published, "ANSWER_SECONDS", 1.0)
    server.manner = manner
    start = time.perf_counter()
    with pytest.raises(FetchError, match=told):
        fetch(remote(), nothing)
    assert time.perf_counter() - start < 5
    assert left(remote().path.parent) == set()
    server.manner = "whole"
    assert fetch(remote(), nothing).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (CONTENT[:-1] + b"x", "its md5 differs"),
        (CONTENT + b"x", "more than the 300,000 bytes expected"),
        (CONTENT[:1000], "cut off after 1,000 of 300,000"),
        (b"", "cut off after 0 of 300,000"),
    ],
)
def test_another_file_than_the_published_is_never_used(
    server: Server, content: bytes, told: str
) -> None:
    server.content = content
    with pytest.raises(FetchError, match=told):
        fetch(remote(), nothing)
    assert left(remote().path.parent) == set()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_is_the_disks_fault(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    monkeypatch.setattr(published, "new_file", lambda _: full.open("wb", buffering=0))
    with pytest.raises(DiskFullError, match="the disk is full"):
        fetch(remote(), nothing)
    assert left(remote().path.parent) == set()


def test_a_body_declared_encoded_is_kept_as_it_is_sent(server: Server) -> None:
    server.manner = "encoded"
    assert fetch(remote(), nothing).read_bytes() == CONTENT


def test_what_a_killed_process_left_is_removed(server: Server) -> None:
    folder = remote().path.parent
    folder.mkdir(parents=True)
    (folder / f".a.bin.8x1{TEMPORARY}").write_bytes(CONTENT[:500])
    fetch(remote(), nothing)
    assert left(folder) == {"a.bin"}


def test_downloads_are_counted_and_cleared_with_the_cache(server: Server) -> None:
    fetch(remote(), nothing)
    assert [size for _, size in cache_entries()] == [len(CONTENT)]
    clear_cache(print)
    assert cache_entries() == []


@pytest.mark.parametrize(
    "url", ["http://example.com/a", "ftp://example.com", "//x", "file:///a", "https://[x"]
)
def test_only_https_and_this_machine_are_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAWNET_MIRROR", url)
    with pytest.raises(FetchError, match="is not https; plain http is taken from this machine"):
        fetch(remote(), nothing)


def test_a_redirect_to_plain_http_is_not_followed(server: Server) -> None:
    other = Server()
    with serving_forever(other):
        server.manner, server.to = "redirect", f"{other.url}/a.bin"
        with pytest.raises(FetchError, match="redirects to plain http, which is not followed"):
            fetch(remote(), nothing)
        assert other.asked == []


def test_two_processes_at_once_download_once(server: Server) -> None:
    server.manner = "slow"
    code = (
        "import sys\n"
        "from thawnet.net.published import Remote, fetch\n"
        f"print(fetch(Remote('https://example.invalid', 'a.bin', {remote().hash!r}, "
        f"{len(CONTENT)}), lambda text: print(text, file=sys.stderr)))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)
    ]
    found = {process.communicate(timeout=60)[0].decode().strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert {Path(path).read_bytes() for path in found} == {CONTENT}
    assert server.asked == ["/a.bin"]


# --- a data set ---------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Let CIFAR-10 be a small one and return its binary archive."""
    layout = cifar.LAYOUTS["cifar10"]
    files = files_of("cifar10", "binary", *small("cifar10"))
    content = pack(tmp_path / "made.tar.gz", files).read_bytes()
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    changed = dataclasses.replace(layout.archive, hash=f"md5:{digest}", size=len(content))
    monkeypatch.setitem(cifar.LAYOUTS, "cifar10", dataclasses.replace(layout, archive=changed))
    monkeypatch.setattr(cifar, "COUNTS", COUNTS)
    return content


@pytest.mark.usefixtures("no_hub")
def test_without_the_hub_the_archive_is_downloaded_and_both_are_told(
    server: Server, archive: bytes
) -> None:
    server.content = archive
    told: list[str] = []
    source = open_source("cifar10", None, tell=told.append)
    assert len(source.open_part("train")) == 50
    assert "not from http://127.0.0.1" in told[0]
    assert "Connection refused" in told[0]
    assert told[-1] == f"cifar10: from {cifar.LAYOUTS['cifar10'].archive.path}"
    again: list[str] = []
    open_source("cifar10", None, tell=again.append)
    assert (len(again), server.asked) == (1, ["/cifar-10-binary.tar.gz"])


@pytest.mark.usefixtures("no_hub")
def test_without_network_one_sentence_names_what_was_tried_and_the_ways_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(published, "ANSWER_SECONDS", 1.0)
    with black_hole() as url:
        monkeypatch.setenv("THAWNET_MIRROR", url)
        with pytest.raises(DataError) as caught:
            open_source("cifar100")
    told = str(caught.value)
    for word in (
        *("http://127.0.0.1", "Connection refused", f"{url}/cifar-100-binary.tar.gz"),
        *("no answer within 1 s", "--data-dir", "HF_ENDPOINT", "THAWNET_MIRROR", "train digits"),
    ):
        assert word in told
    assert "\n" not in told


# --- the whole command --------------------------------------------------------------------------


class black_hole:  # noqa: N801  # reads as a function where it is used
    """An address on this machine that takes connections and never answers."""

    def __enter__(self) -> str:
        self.socket = socket.create_server(("127.0.0.1", 0))
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def __exit__(self, *error: object) -> None:
        self.socket.close()


def command(*words: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], float]:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "thawnet", "train", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HOME": str(Path("hub").resolve())} | variables,
        timeout=60,
    )
    return done, time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.parametrize("where", ["refused", "black hole"])
def test_without_network_the_command_ends_within_30_seconds(
    where: str, photos: Callable[..., Path]
) -> None:
    folder = str(photos({"a": 20, "b": 20}))
    with black_hole() as url:
        if where == "refused":
            with socket.create_server(("127.0.0.1", 0)) as closed:
                url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        variables = {"HF_ENDPOINT": url, "THAWNET_MIRROR": url}
        for words, expected in (
            (("cifar100",), "--data-dir"),
            ((folder, "--weights", "imagenet"), "--weights bundled"),
            ((folder, "--weights", "keras"), "--weights bundled"),
        ):
            done, seconds = command(*words, **variables)
            print(f"{where}, {words[-1]}: {seconds:.1f} s")
            assert done.returncode == 1
            assert expected in done.stderr.splitlines()[-1]
            assert "Traceback" not in done.stderr
            assert seconds < 30


# --- the hub ------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[HubHandler]]:
    from huggingface_hub import constants

    handler = type("Hub", (HubHandler,), {"files": {}, "asked": []})
    with serving_forever(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as address:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        set_endpoint(monkeypatch, address)
        yield handler


def test_a_data_set_comes_from_the_hub_first_and_then_from_its_cache(
    hub: type[HubHandler],
) -> None:
    hub.files |= {
        "plain_text/train-00000-of-00001.parquet": shard(30),
        "plain_text/test-00000-of-00001.parquet": shard(10),
        "README.md": b"#",
    }
    told: list[str] = []
    source = open_source("cifar10", None, tell=told.append)
    assert told == ["cifar10: from the Hugging Face hub, uoft-cs/cifar10"]
    assert len(source.open_part("train")) == 30
    assert len(source.classes) == 10
    assert not any("README" in asked for asked in hub.asked if "/resolve/" in asked)
    hub.asked.clear()
    assert len(open_source("cifar10").open_part("test")) == 10
    assert hub.asked == []


def test_a_data_set_that_the_hub_lacks_is_told_and_looked_for_in_the_archive(
    hub: type[HubHandler], server: Server, archive: bytes
) -> None:
    server.content = archive
    told: list[str] = []
    source = open_source("cifar10", None, tell=told.append)
    assert "holds no parquet shards" in told[0]
    assert len(source.open_part("test")) == 20


def test_the_hub_may_not_redirect_to_plain_http(hub: type[HubHandler]) -> None:
    hub.files["plain_text/train-00000-of-00001.parquet"] = shard(30)
    hub.to = "http://example.invalid/shard"
    with pytest.raises(FetchError, match=r"'http://example.invalid/shard' is not https"):
        fetch_shards("uoft-cs/cifar10")


def test_timm_weights_come_from_the_hub_and_then_from_its_cache(hub: type[HubHandler]) -> None:
    import timm
    import torch
    from safetensors.torch import save

    made = timm.create_model("mobilenetv2_100")
    hub.files["model.safetensors"] = save(made.state_dict())
    weights = load_weights("imagenet", "mobilenetv2_100")
    assert torch.equal(weights.tensors["conv_stem.weight"], made.state_dict()["conv_stem.weight"])
    assert weights.size == 224
    hub.asked.clear()
    assert load_weights("imagenet", "mobilenetv2_100").digest == weights.digest
    assert hub.asked == []


@pytest.mark.usefixtures("hub")
def test_weights_that_the_hub_lacks_are_one_sentence() -> None:
    with pytest.raises(WeightsError, match=r"could not be loaded from http://127.*--weights FILE"):
        load_weights("imagenet", "mobilenetv2_100")
