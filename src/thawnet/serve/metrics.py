"""The counters of the service, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Counts:
    """One service's counters, apart from any other's in this process."""

    def __init__(self, waiting: Callable[[], int], under_way: Callable[[], int]) -> None:
        """waiting: images in the queue. under_way: requests that are received or computed."""
        # When each counter began: as many lines again, which nobody reads.
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
            "thawnet_computing_seconds", "Spent decoding and computing", registry=registry
        )
        Gauge("thawnet_waiting_images", "Images in the queue", registry=registry).set_function(
            waiting
        )
        Gauge("thawnet_requests_under_way", "Received or computed", registry=registry).set_function(
            under_way
        )

    def predicted(self, status: int, answered: int, unreadable: int, seconds: float) -> None:
        """Count a request for predictions, and its images."""
        self.requests.labels("/predict", status).inc()
        self._answered.inc(answered)
        self._unreadable.inc(unreadable)
        self.seconds.observe(seconds)

    def batch_done(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self.batch.observe(images)
        self.computing.inc(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)
