"""A real nginx on this machine."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
OPENSSL = shutil.which("openssl")
NEEDED = pytest.mark.skipif(NGINX is None, reason="there is no nginx here")


def free_port() -> int:
    """Return a port that nobody listens on, nor gets by asking for any that is free."""
    for port in random.sample(range(15_000, 30_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


@contextmanager
def running(folder: Path, port: int, server: str, http: str = "", name: str = "") -> Iterator[None]:
    """Run nginx with one server on a port of this machine.

    folder: for its files. server, http: lines of these blocks. name: a host's, to speak TLS as it.
    """
    assert NGINX is not None
    tls = ""
    if name:
        if OPENSSL is None:
            pytest.skip("there is no openssl here")
        words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name}".split()
        files = ("-keyout", folder / "own.key", "-out", folder / "own.pem")
        subprocess.run([OPENSSL, *words, *files], check=True, capture_output=True)
        tls = f"ssl_certificate {files[3]}; ssl_certificate_key {files[1]};"
    folders = "".join(
        f"{each}_temp_path {folder / each};\n"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config, log = folder / "nginx.conf", folder / "error.log"
    config.write_text(
        f"""daemon off;
        master_process off;
        pid {folder / "pid"};
        events {{}}
        http {{
            access_log off;
            {folders}
            {http}
            server {{ listen 127.0.0.1:{port} {"ssl" if name else ""}; {tls} {server} }}
        }}"""
    )
    job = subprocess.Popen([NGINX, "-c", config, "-p", folder, "-e", log])
    try:
        for _ in range(200):
            with closing(socket.socket()) as line:
                if job.poll() is not None or line.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        if job.poll() is not None:
            pytest.fail(f"nginx did not start: {log.read_text()}")
        yield
    finally:
        job.terminate()
        job.wait(10)
