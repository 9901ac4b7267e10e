"""The command `serve`: serve a trained network as a web page and a JSON API."""

from __future__ import annotations

import errno
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from ..core import console
from ..core.errors import RunError, UsageError
from ..core.flags import Section, Switch, option
from ..core.packages import require_installed
from ..core.text import command_line
from ..net.http import is_loopback

if TYPE_CHECKING:
    from ..bundle.model import Model
    from ..serve.app import Settings
    from ..serve.collection import Collection

SERVE_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
INSTALL = command_line("pip", "install", "thawnet[serve]")
PORTS = {"http": 80, "https": 443}
TOKEN = "THAWNET_TOKEN"  # noqa: S105 - the name of a variable
MOST_EXAMPLES = 12


@dataclass(frozen=True)
class ServeOptions:
    """Serve a trained network: a web page and a JSON API.

    Prints the page's address. POST /predict takes images and returns JSON; /docs shows how to call
    it, /openapi.json describes it to programs. Ctrl-C and SIGTERM finish the requests that were
    accepted, then stop.
    """

    model: Annotated[Path | None, option("RUN")] = None
    """The folder of a finished run, or a bundle. Default: the embedded network, for the 100 classes
    of CIFAR-100."""
    host: Annotated[str, option("ADDRESS")] = "127.0.0.1"
    """The address to listen on. Any but localhost (127.0.0.1) needs a token, or --insecure."""
    port: Annotated[int, option("PORT")] = 8000
    """The port to listen on; 0 takes a free one."""
    examples: Annotated[Path | None, option("FOLDER")] = None
    """Example images to click on the page, at most 12. Default: the embedded network's own, and
    none for others."""
    collect: Annotated[Path | None, option("FOLDER")] = None
    """Let visitors say which class is right, and keep their photos in FOLDER, as a data set that
    `thawnet train` takes. Off by default. The page tells visitors before a photo is kept."""
    collect_mb: Annotated[int, option("MB")] = 1000
    """With --collect: the most that FOLDER may hold, in MiB."""
    max_mb: Annotated[int, option("MB")] = 32
    """Largest size of a request, in MiB."""
    workers: Annotated[int | None, option("N")] = None
    """Processes that decode and compute, about 130 MB each. Default: one per core."""
    access_log: Switch = False
    """Write a line for each response to stderr: time, address, method, path, status, duration."""
    token: Annotated[str | None, option("TOKEN"), Section("access")] = None
    """What callers must send, as `Authorization: Bearer TOKEN`. Default: $THAWNET_TOKEN, which
    other users of this machine cannot read from the list of processes."""
    insecure: Switch = False
    """Need no token: everyone who reaches --host, or --public-url, may send images."""
    public_url: Annotated[str | None, option("URL")] = None
    """Behind a proxy: the address at which people open the page, such as
    https://photos.example.org, with the path that the proxy removes, if any."""
    allow_origin: Annotated[tuple[str, ...], option("URL ...")] = ()
    """Other web sites whose pages may call the API, such as https://app.example.org (CORS)."""


def serve(options: ServeOptions) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises UsageError for wrong options or an address that cannot be listened on, BundleError if
    there is no network to predict with.
    """
    token = (options.token or os.environ.get(TOKEN) or "").strip() or None
    _check(options, token)
    require_installed("serving", SERVE_PACKAGES, INSTALL)
    from ..bundle.model import load

    model = load(options.model, options.workers)
    settings = _settings(options, model, token)
    listening = _listen(options.host, options.port)
    from ..serve.app import make_app
    from ..serve.connection import run

    console.say(model.summary)
    where = f", for {options.public_url}" if options.public_url else ""
    asks = "; it asks for the token" if token else ""
    console.say(f"serving at {address_of(listening)}{where} (Ctrl-C stops){asks}")
    run(make_app(model, settings), listening)
    console.say("stopped; every request that was accepted is answered")


def _check(options: ServeOptions, token: str | None) -> None:
    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port {options.port}: must be 0 to 65535")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers {options.workers}: must be at least 1")
    if options.collect_mb < 1:
        raise UsageError(f"--collect-mb {options.collect_mb}: must be at least 1")
    if options.collect is not None and options.collect.exists() and not options.collect.is_dir():
        raise UsageError(f"--collect '{options.collect}': this is a file; name a folder")
    if not 1 <= options.max_mb <= 1024:
        raise UsageError(f"--max-mb {options.max_mb}: must be 1 to 1024")
    addresses = [("--allow-origin", address) for address in options.allow_origin]
    if options.public_url:
        addresses.append(("--public-url", options.public_url))
    for flag, address in addresses:
        if origin_of(address) is None:
            raise UsageError(f"{flag} '{address}': expected an address as https://example.org")
    if token and not re.fullmatch(r"[\x20-\x7e]+", token):
        raise UsageError(
            f"the token in ${TOKEN}, or of --token: only ASCII letters, digits, signs and blanks "
            "can be sent; `openssl rand -hex 24` makes one"
        )
    if not token and not options.insecure:
        opened = options.public_url and f"--public-url {options.public_url}"
        if not is_loopback(options.host):
            opened = f"--host {options.host}"
        if opened:
            raise UsageError(
                f"{opened} lets other machines ask: set ${TOKEN}, give --token, or add "
                "--insecure to let everyone"
            )


def origin_of(address: str) -> str | None:
    """Return the origin of an http or https address as browsers send it; None for any other text.

    That is without a path, without the scheme's own port, and with an international name in ASCII.
    """
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port not in (None, PORTS.get(parts.scheme)) else ""
        name = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError:  # UnicodeError is one
        return None
    if parts.scheme not in PORTS or not name or parts.username:
        return None
    host = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{host}{port}"


def _settings(options: ServeOptions, model: Model, token: str | None) -> Settings:
    from ..serve.app import Settings
    from ..serve.intake import Limits
    from ..webpage.facts import EXAMPLES, is_embedded, name_for_people

    own = is_embedded(model)
    folder = options.examples or (EXAMPLES if own else None)
    body = options.max_mb * 2**20
    return Settings(
        name=name_for_people(model, options.model),
        token=token,
        local=is_loopback(options.host),
        public=options.public_url and origin_of(options.public_url),
        origins=tuple(map(str, map(origin_of, options.allow_origin))),
        examples=_pictures(folder) if folder is not None else {},
        log=console.say if options.access_log else None,
        limits=Limits(body=body, total=max(Limits.total, 4 * body)),
        collection=_collection(options, model),
    )


def _collection(options: ServeOptions, model: Model) -> Collection | None:
    from ..serve.collection import Collection
    from ..sorting import check_folder_names

    if options.collect is None:
        return None
    check_folder_names(model.classes, "--collect")
    try:
        collection = Collection(options.collect, model.classes, options.collect_mb * 2**20)
    except (RunError, OSError) as error:
        raise UsageError(f"--collect '{options.collect}': {error}; name another folder") from error
    console.say(f"photos that visitors correct or confirm are kept in {options.collect}")
    return collection


def _pictures(folder: Path) -> dict[str, Path]:
    """Return the first images of a folder, by file name."""
    from ..image.decode import SUFFIXES

    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise UsageError(f"--examples '{folder}': {error.strerror}") from error
    if not files:
        raise UsageError(f"--examples '{folder}': no image files in it")
    return {path.name: path.resolve() for path in files[:MOST_EXAMPLES]}


def _listen(host: str, port: int) -> socket.socket:
    from ..serve.connection import listen

    try:
        return listen(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"--port {port}: the port is in use; choose another, or 0 for any free one"
            ) from error
        raise UsageError(f"--host {host} --port {port}: {error.strerror}") from error


def address_of(listening: socket.socket) -> str:
    """Return the address to open, from another device if it listens on all addresses."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = _own_address()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _own_address() -> str:
    """Return this machine's address on its network, localhost if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses a route and sends nothing; RFC 5737
        except OSError:
            return "localhost"
        return str(probe.getsockname()[0])
