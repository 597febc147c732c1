"""Prometheus metrics, summed over the workers of a service."""

import os
from functools import cache
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client import REGISTRY as LOCAL
from prometheus_client.multiprocess import MultiProcessCollector

# The status of what was refused because others asked too much, though its client is told 503. All other 5xx are
# faults of the service; what a client did is 4xx, 408 and 499 included.
OVERLOADED = "overload"
REQUESTS = Counter("http_requests_total", "Requests, by how they ended", ["method", "route", "status"])
SECONDS = Histogram(
    "http_request_duration_seconds",
    "Time that requests took the service, without what it waited for their clients",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


@cache
def requests_counter(method: str, route: str, status: str) -> Counter:
    return REQUESTS.labels(method, route, status)


@cache
def seconds_histogram(method: str, route: str) -> Histogram:
    return SECONDS.labels(method, route)


@cache
def lost_workers() -> Counter:
    """Worker processes that ended without being told to. Their requests had no answer, and are counted nowhere else."""
    # Made when asked for: a metric without labels opens its file at once, and gunicorn makes the folder for it.
    return Counter("worker_processes_lost_total", "Worker processes that crashed or hung")


def render() -> tuple[bytes, str]:
    """All workers' numbers as Prometheus text, and its content type."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    if not Path(directory).is_dir() or not directory:
        return generate_latest(LOCAL), CONTENT_TYPE_LATEST
    registry = CollectorRegistry()
    MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
