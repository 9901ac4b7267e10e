"""What comes over the network: whole and as published, or not at all, and never for long."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from support.hub import HubHandler, hub_here, set_endpoint, shard
from support.published_cifar import COUNTS, files_of, pack, small
from support.systems import LINUX
from support.web import Raw, ok, serving_forever
from thawnet.core.errors import DataError, DiskFullError, WeightsError
from thawnet.core.files import TEMPORARY
from thawnet.data.sources import cifar
from thawnet.data.sources.open import open_source
from thawnet.model.weights import load_weights
from thawnet.net import published
from thawnet.net.http import FetchError, require_https
from thawnet.net.hub import fetch_shards
from thawnet.net.published import Remote, fetch

CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Raw]:
    """Serve CONTENT at any address of the mirror."""
    server = Raw(ok(CONTENT))
    with serving_forever(server) as url:
        monkeypatch.setenv("THAWNET_MIRROR", url)
        yield server


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the hub's client find nothing in its cache and nobody at its address."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    set_endpoint(monkeypatch, refused())


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield an address on this machine that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def refused() -> str:
    """Return an address on this machine where nobody listens."""
    with black_hole() as address:
        return address


def remote() -> Remote:
    digest = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    return Remote("https://example.invalid", "a.bin", digest, len(CONTENT))


def nothing(text: str) -> None:
    """Tell nobody."""


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- one file -----------------------------------------------------------------------------------


def test_a_file_is_downloaded_once_and_checked_again_each_time(server: Raw) -> None:
    told: list[str] = []
    path = fetch(remote(), told.append)
    assert path.read_bytes() == CONTENT
    assert fetch(remote(), told.append) == path
    assert (server.asked, len(told)) == (["/a.bin"], 1)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch(remote(), told.append).read_bytes() == CONTENT
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ([b"HTTP/1.1 404 Not Found\r\n\r\n"], "HTTP 404"),
        ([ok(CONTENT)[:-120_000]], "cut off after 180,000 of 300,000 bytes"),
        ([b"HTTP/1.1 200 OK\r\n\r\n", CONTENT[:-1]], "cut off after 299,999 of 300,000 bytes"),
        ([ok(CONTENT[:1000])], "cut off after 1,000 of 300,000"),
        ([ok(b"")], "cut off after 0 of 300,000"),
        ([ok(CONTENT + b"x")], "more than the 300,000 bytes expected"),
        ([ok(CONTENT[:-1] + b"x")], "its md5 differs"),
        ([ok(CONTENT)[:-300_000], *[b"x"] * 100], r"it stalled: \d+ bytes in 1 s"),
        ([b""] * 600, "no answer within 1 s"),
    ],
)
def test_anything_but_the_published_file_leaves_nothing_and_the_next_attempt_works(
    server: Raw, monkeypatch: pytest.MonkeyPatch, answer: list[bytes], told: str
) -> None:
    monkeypatch.setattr("thawnet.net.http.STALL_SECONDS", 0.5)
    monkeypatch.setattr("thawnet.net.http.ANSWER_SECONDS", 1.0)
    server.answer, server.pause = answer, 0.05
    start = time.perf_counter()
    with pytest.raises(FetchError, match=told):
        fetch(remote(), nothing)
    assert time.perf_counter() - start < 5
    assert left(remote().path.parent) == set()
    server.answer = [ok(CONTENT)]
    assert fetch(remote(), nothing).read_bytes() == CONTENT


@LINUX
def test_a_full_disk_is_the_disks_fault(server: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    monkeypatch.setattr(published, "new_file", lambda _: full.open("wb", buffering=0))
    with pytest.raises(DiskFullError, match="the disk is full"):
        fetch(remote(), nothing)
    assert left(remote().path.parent) == set()


def test_a_body_declared_encoded_is_kept_as_it_is_sent(server: Raw) -> None:
    server.answer = [ok(CONTENT, "Content-Encoding: x-gzip")]
    assert fetch(remote(), nothing).read_bytes() == CONTENT


def test_what_a_killed_process_left_is_removed(server: Raw) -> None:
    folder = remote().path.parent
    folder.mkdir(parents=True)
    (folder / f".a.bin.8x1{TEMPORARY}").write_bytes(CONTENT[:500])
    fetch(remote(), nothing)
    assert left(folder) == {"a.bin"}


@pytest.mark.parametrize(
    "url", ["http://example.com/a", "ftp://example.com", "//x", "file:///a", "https://[x"]
)
def test_only_https_and_this_machine_are_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAWNET_MIRROR", url)
    with pytest.raises(FetchError, match="is not https; plain http is taken from this machine"):
        fetch(remote(), nothing)


def test_hosts_without_https_are_asked_where_they_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THAWNET_PLAIN_HTTP", "mirror.lan, 10.0.0.7")
    for address in ("http://mirror.lan:8080/a", "http://MIRROR.lan/a", "http://10.0.0.7/a"):
        require_https(address)
    for address in ("http://mirror.lan.evil.org/a", "http://10.0.0.70/a", "http://other.lan"):
        with pytest.raises(FetchError, match="and from hosts that THAWNET_PLAIN_HTTP names"):
            require_https(address)


@pytest.mark.parametrize(("seconds", "waits"), [("4", True), ("soon", False), (None, False)])
def test_a_slow_server_is_waited_for_as_the_hubs_variable_says(
    server: Raw, monkeypatch: pytest.MonkeyPatch, seconds: str | None, waits: bool
) -> None:
    monkeypatch.setattr("thawnet.net.http.ANSWER_SECONDS", 0.5)
    if seconds is None:
        monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    else:
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", seconds)
    server.answer, server.pause = [b"", ok(CONTENT)], 1.0
    if waits:
        assert fetch(remote(), nothing).read_bytes() == CONTENT
    else:
        with pytest.raises(FetchError, match="no answer within 0 s"):
            fetch(remote(), nothing)


def test_a_redirect_to_plain_http_is_not_followed(server: Raw) -> None:
    server.answer = [b"HTTP/1.1 302 Found\r\nLocation: http://example.invalid/a.bin\r\n\r\n"]
    with pytest.raises(FetchError, match=r"'http://example.invalid/a.bin' is not https"):
        fetch(remote(), nothing)


def test_two_processes_at_once_download_once(server: Raw) -> None:
    server.pause = 1.5
    code = (
        "import sys\n"
        "from thawnet.net.published import Remote, fetch\n"
        f"print(fetch({remote()!r}, lambda text: print(text, file=sys.stderr)))"
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
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Raw) -> None:
    """Let CIFAR-10 be a small one, whose binary archive the mirror serves."""
    layout = cifar.LAYOUTS["cifar10"]
    files = files_of("cifar10", "binary", *small("cifar10"))
    content = pack(tmp_path / "made.tar.gz", files).read_bytes()
    server.answer = [ok(content)]
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    changed = dataclasses.replace(layout.archive, md5=digest, size=len(content))
    monkeypatch.setitem(cifar.LAYOUTS, "cifar10", dataclasses.replace(layout, archive=changed))
    monkeypatch.setattr(cifar, "COUNTS", COUNTS)


@pytest.mark.usefixtures("no_hub", "archive")
def test_without_the_hub_the_archive_is_downloaded_and_both_are_told(server: Raw) -> None:
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
    monkeypatch.setattr("thawnet.net.http.ANSWER_SECONDS", 1.0)
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


@pytest.mark.slow
@pytest.mark.parametrize("where", ["refused", "black hole"])
def test_without_network_the_command_ends_within_30_seconds(
    where: str, photos: Callable[..., Path]
) -> None:
    folder = str(photos({"a": 20, "b": 20}))
    with black_hole() as silent:
        url = refused() if where == "refused" else silent
        variables = {
            "HF_ENDPOINT": url,
            "THAWNET_MIRROR": url,
            "HF_HOME": str(Path("hub").resolve()),
        }
        for words, expected in (
            (("cifar100",), "--data-dir"),
            ((folder, "--weights", "imagenet"), "--weights bundled"),
            ((folder, "--weights", "keras"), "--weights bundled"),
        ):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "thawnet", "train", *words],
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | variables,
                timeout=60,
            )
            seconds = time.perf_counter() - start
            print(f"{where}, {words[-1]}: {seconds:.1f} s")
            assert done.returncode == 1
            assert expected in done.stderr.splitlines()[-1]
            assert "Traceback" not in done.stderr
            assert seconds < 30


# --- the hub ------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[HubHandler]]:
    with hub_here(monkeypatch, tmp_path / "hub") as handler:
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


@pytest.mark.usefixtures("hub", "archive")
def test_a_data_set_that_the_hub_lacks_is_told_and_looked_for_in_the_archive() -> None:
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
