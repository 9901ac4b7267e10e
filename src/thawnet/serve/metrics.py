"""Prometheus metrics of the service, and its access log."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)
LONGEST_PATH = 200  # characters logged


class Counts:
    """Metrics of one service, separate from any other's in this process."""

    def __init__(self, waiting: Callable[[], int], under_way: Callable[[], int]) -> None:
        """waiting: returns the images in the queue. under_way: returns the requests in progress."""
        # The creation times of counters would double the output, and nobody reads them.
        disable_created_metrics()
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "thawnet_requests", "Requests answered", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "thawnet_predict_seconds",
            "From the first byte of a request for predictions to its answer",
            buckets=SECONDS,
            registry=registry,
        )
        images = Counter(
            "thawnet_images", "Images of requests answered", ["outcome"], registry=registry
        )
        self._answered, self._unreadable = images.labels("answered"), images.labels("unreadable")
        self.batch = Histogram(
            "thawnet_batch_images", "Images computed at once", buckets=IMAGES, registry=registry
        )
        self.computing = Counter(
            "thawnet_computing_seconds",
            "From sending batches to their answers",
            registry=registry,
        )
        Gauge("thawnet_waiting_images", "Images in the queue", registry=registry).set_function(
            waiting
        )
        Gauge("thawnet_requests_under_way", "Received or computed", registry=registry).set_function(
            under_way
        )

    def predicted(self, answered: int, unreadable: int, seconds: float) -> None:
        """Record an answered request for predictions: its images, and its seconds."""
        self._answered.inc(answered)
        self._unreadable.inc(unreadable)
        self.seconds.observe(seconds)

    def batch_done(self, images: int, seconds: float) -> None:
        """Record a computed batch."""
        self.batch.observe(images)
        self.computing.inc(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)


class Counted:
    """ASGI middleware that counts and logs every response, including refusals."""

    def __init__(
        self,
        app: ASGIApp,
        counts: Counts,
        paths: Collection[str],
        log: Callable[[str], None] | None = None,
    ) -> None:
        """paths: counted separately. log: called with a line for each response."""
        self.app = app
        self._counts = counts
        self._paths = paths
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()  # the status of an uncaught exception

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._counts.requests.labels(path, status).inc()
            if self._log is not None:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                address = scope["client"][0] if scope["client"] else "-"
                # As it was sent, percent-encoded: without line ends and control characters.
                asked = scope["raw_path"].decode("latin-1")[:LONGEST_PATH]
                spent = f"{1000 * (time.perf_counter() - started):.0f} ms"
                self._log(f"{now} {address} {scope['method']} {asked} {status} {spent}")
