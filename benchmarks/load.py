"""The service under load: throughput compared with that of its parts, and behaviour in overload.

    python benchmarks/load.py ../shared/data/cifar100 --size 32 32 --images 1 --turns 3
    python benchmarks/load.py ../shared/data/cifar100 --minutes 1 --rate 300
    python benchmarks/load.py ../shared/data/cifar100 --minutes 10 --rate 1200 --clients 600

Uses the embedded network, test images of CIFAR-100 as JPEGs of a given size, and `hey` (a Debian
package) as the load generator, on the same cores. In each turn, the first form measures one after
another: prediction in this process (direct), requests to constant_server.py (no-op), and requests
to `thawnet serve`. Its 32 clients send a request as soon as the previous one is answered. The other
forms send requests at a steady rate, the clients in step, and record the server's memory. Prints a
JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import thawnet
from inputs import write_photos
from memory import Memory
from predicting import predict

CLIENTS = 32
BOUNDARY = "between-images"
CONSTANT = [str(Path(__file__).with_name("constant_server.py"))]
SERVE = ["-m", "thawnet", "serve", "--port"]


def form(files: Sequence[Path]) -> bytes:
    """Return files as a multipart body."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{file.name}"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
        + file.read_bytes()
        + b"\r\n"
        for file in files
    ]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


@contextmanager
def served(command: Sequence[str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Start a server, passing a free port as its last argument; yield the port and the process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    job = subprocess.Popen([sys.executable, *command, str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with socket.socket() as line:
                if line.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port, job
    finally:
        job.send_signal(signal.SIGTERM)
        job.wait()


def hey(
    port: int, body: Path, seconds: float, clients: int = CLIENTS, rate: float | None = None
) -> dict[str, Any]:
    """Run hey; return requests per second, latencies in ms, statuses and the cores it used."""
    pace = [] if rate is None else ["-q", f"{rate / clients:.4g}"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    said = subprocess.run(
        [
            *("hey", "-z", f"{seconds:g}s", "-c", str(clients), *pace, "-m", "POST"),
            *("-T", f"multipart/form-data; boundary={BOUNDARY}", "-D", str(body)),
            f"http://127.0.0.1:{port}/predict",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    spent, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    latencies = re.findall(r"(50|95|99)%+ in ([\d.]+) secs", said)
    statuses = re.findall(r"\[(\d+)\]\s+(\d+) responses", said)
    return {
        "per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]),
        "ms": {share: 1000 * float(value) for share, value in latencies},
        "statuses": {code: int(count) for code, count in statuses},
        "errors": " ".join(said.partition("Error distribution:")[2].split()),
        "client_cores": cpu / spent,
    }


def throughput(files: list[Path], body: Path, turns: int, seconds: float) -> dict[str, Any]:
    """Return images/s of direct prediction and requests/s of both servers, for each turn.

    files: the images of each request. body: the file with their form.
    """
    model = thawnet.load()
    images = [file.read_bytes() for file in files]
    many = images * max(1, int(300 * seconds) // len(images))
    measured = []
    with served(CONSTANT) as (constant, _), served(SERVE) as (real, _):
        for port in (constant, real):
            hey(port, body, 2)
        for _ in range(turns):
            direct = len(many) / predict(model, many)
            noop = hey(constant, body, seconds)
            answered = hey(real, body, seconds)
            bound = 1 / (len(images) / direct + 1 / noop["per_second"])
            share = answered["per_second"] / bound
            measured.append({"direct": direct, "noop": noop, "served": answered, "share": share})
    return {"images": len(images), "bytes": sum(map(len, images)), "turns": measured}


def steady(
    files: list[Path], body: Path, minutes: float, rate: float, clients: int
) -> dict[str, Any]:
    """Send a steady rate of requests; return hey's results, memory, and the latency afterwards."""
    with served(SERVE) as (port, job):
        hey(port, body, 2)
        memory = Memory(job.pid)
        memory.start()
        answered = hey(port, body, 60 * minutes, clients, rate)
        memory.stop()
        begun = time.perf_counter()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/predict",
            files[0].read_bytes(),
            {"Content-Type": "image/jpeg"},
        )
        with urllib.request.urlopen(request) as answer:
            answer.read()
        after = 1000 * (time.perf_counter() - begun)
    readings = memory.readings[1::20]  # one every 5 seconds
    return {"rate": rate, **answered, "memory": readings, "first_answer_after_ms": after}


def main() -> None:
    """Measure throughput, or with --minutes a steady rate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="CIFAR-100's parquet shards")
    parser.add_argument("--size", type=int, nargs=2, default=(32, 32), help="width and height")
    parser.add_argument("--images", type=int, default=1, help="in each request")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each part of a turn")
    parser.add_argument("--minutes", type=float, help="ask at a steady rate for so long")
    parser.add_argument("--rate", type=float, help="requests a second")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="that ask at that rate")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        width, height = chosen.size
        photos = Path(name) / "photos"
        files = sorted(write_photos(chosen.data, photos, chosen.images, (width, height)).iterdir())
        body = Path(name) / "body"
        body.write_bytes(form(files))
        if chosen.minutes is None:
            measured = throughput(files, body, chosen.turns, chosen.seconds)
        else:
            measured = steady(files, body, chosen.minutes, chosen.rate, chosen.clients)
    print(json.dumps({"size": chosen.size, **measured}), flush=True)


if __name__ == "__main__":
    main()
