"""Prometheus metrics, summed over the workers of a service."""

import os
from functools import cache
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client import REGISTRY as LOCAL
from prometheus_client.multiprocess import MultiProcessCollector

REQUESTS = Counter("http_requests_total", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram(
    "http_request_duration_seconds",
    "Time from a request's head to its answer's end",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


@cache
def requests_counter(method: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(method, route, str(status))


@cache
def seconds_histogram(method: str, route: str) -> Histogram:
    return SECONDS.labels(method, route)


def render() -> tuple[bytes, str]:
    """All workers' numbers as Prometheus text, and its content type."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    if not Path(directory).is_dir() or not directory:
        return generate_latest(LOCAL), CONTENT_TYPE_LATEST
    registry = CollectorRegistry()
    MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
