"""What is counted and timed, as Prometheus reads it."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        one: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("retrieve_requests", "Requests answered.", ["route", "method", "status"], **one)
        self.request_seconds = Histogram(
            "retrieve_request_seconds", "From the first byte to the answer.", ["route"], buckets=_SECONDS, **one
        )
        self.stage_seconds = Histogram(
            "retrieve_stage_seconds",
            "Of a search: reading its body, decoding, waiting for others, embedding and searching.",
            ["stage"],
            buckets=_SECONDS,
            **one,
        )
        self.batch_size = Histogram(
            "retrieve_batch_size", "Queries that were embedded together.", buckets=(1, 2, 4, 8, 16, 32), **one
        )
        self.queue = Gauge("retrieve_queue", "Searches and upserts that wait or run.", **one)
        self.refused = Counter("retrieve_refused", "Requests answered 429, because the queue was full.", **one)
        self.errors = Counter("retrieve_errors", "Requests answered with a problem.", ["status"], **one)
        self.skipped = Counter("retrieve_skipped_pictures", "Pictures that could not be used.", **one)
        self.generation = Gauge("retrieve_generation", "Of the index that answers.", **one)
        self.images = Gauge("retrieve_images", "Pictures in the index.", **one)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
