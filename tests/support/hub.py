"""As much of the Hugging Face hub as its client needs, on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from support import shards
from support.photos import encoded
from support.web import serving_forever

SHA = "0123456789abcdef0123456789abcdef01234567"
CONVERTED_SHA = SHA[::-1]


class HubHandler(http.server.BaseHTTPRequestHandler):
    """As much of the hub as its client needs for files without large-file storage."""

    files: dict[str, bytes]
    converted: dict[str, bytes]
    """What the hub has made of them, in a branch of its own."""
    asked: list[str]
    address: str
    missing = False
    """Whether it has no repository of the name that is asked for, or does not show it."""
    to = ""
    commit = SHA

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        path = urllib.parse.unquote(self.path.split("?")[0])
        converted = "refs/convert/parquet" in path or CONVERTED_SHA in path
        files = self.converted if converted else self.files
        self.commit = CONVERTED_SHA if converted else SHA
        path = path.replace("refs/convert/parquet", CONVERTED_SHA)
        if self.missing and "/api/" in path:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif "/api/" in path and "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": name_of(content)}
                for name, content in files.items()
            ]
            self.answer(json.dumps(entries).encode())
        elif "/api/" in path:
            self.answer(json.dumps({"id": "x/y", "sha": self.commit, "siblings": []}).encode())
        elif "/resolve/" in path:
            name = path.split("/resolve/")[1].split("/", 1)[1]
            if self.to:
                self.send_response(302)
                self.send_header("Location", self.to)
                self.send_header("X-Repo-Commit", self.commit)
                self.send_header("X-Linked-Etag", f'"{name_of(files[name])}"')
                self.send_header("X-Linked-Size", str(len(files[name])))
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif name in files:
                self.answer(files[name], name_of(files[name]))
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Repo-Commit", self.commit)
                self.send_header("Content-Length", "0")
                self.end_headers()
        else:
            self.answer(b"")

    do_HEAD = do_GET  # noqa: N815  # the server's name for it

    def answer(self, content: bytes, etag: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", self.commit)
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are in `asked`."""


@contextmanager
def hub_here(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[type[HubHandler]]:
    """Serve an empty hub on this machine, with an empty cache of the hub's client."""
    from huggingface_hub import constants

    handler = type("Hub", (HubHandler,), {"files": {}, "converted": {}, "asked": []})
    with serving_forever(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as address:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        set_endpoint(monkeypatch, address)
        handler.address = address
        yield handler


def name_of(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def set_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Do what HF_ENDPOINT does, which the hub's client reads when it is imported."""
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)


def shard(images: int) -> bytes:
    cell = {"bytes": encoded(Image.new("RGB", (32, 32))), "path": None}
    names = [f"class {number}" for number in range(10)]
    return shards.shard([cell] * images, [number % 10 for number in range(images)], names)
