"""The queue's and the tasks' figures for Prometheus.

Counts are kept in Redis, where the queue is: they are those of all workers, whichever process ran a task, and outlive
each. The worker's main process serves them.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError

from celery_worker.store import HEARTBEAT_KEY

logger = logging.getLogger("metrics")

# Fields are "<task> <state>" for runs and "<task>" for the seconds they took.
RUNS_KEY = "celery-figures:runs"
SECONDS_KEY = "celery-figures:seconds"
UNACKNOWLEDGED_KEY = "unacked"


def count_run(redis: Redis, task: str, state: str, seconds: float) -> None:
    """Count that a task ended, and how. A count that cannot be kept is no reason to trouble the task."""
    try:
        pipeline = redis.pipeline(transaction=False)
        pipeline.hincrby(RUNS_KEY, f"{task} {state.lower()}", 1)
        pipeline.hincrbyfloat(SECONDS_KEY, task, seconds)
        pipeline.execute()
    except RedisError as error:
        logger.warning("a task was not counted: %s", error)


class QueueCollector(Collector):
    """Asks Redis when Prometheus asks."""

    def __init__(self, redis: Redis, queues: Iterable[str]) -> None:
        self._redis = redis
        self._queues = tuple(queues)

    def collect(self) -> Iterator[Metric]:
        now = time.time()
        length = GaugeMetricFamily("berth_queue_length", "Tasks that wait for a worker", labels=["queue"])
        oldest = GaugeMetricFamily(
            "berth_queue_oldest_seconds", "How long the task that is next has waited", labels=["queue"]
        )
        for queue in self._queues:
            length.add_metric([queue], float(self._redis.llen(queue)))
            # Put in at the left, taken at the right.
            sent = _sent_at(self._redis.lindex(queue, -1) or "")
            oldest.add_metric([queue], max(now - sent, 0) if sent else 0)
        yield length
        yield oldest
        yield GaugeMetricFamily(
            "berth_queue_unacknowledged",
            "Tasks that a worker has taken and not ended, those that wait for another attempt among them",
            value=float(self._redis.hlen(UNACKNOWLEDGED_KEY)),
        )
        # It is forgotten after some minutes.
        heartbeat = self._redis.get(HEARTBEAT_KEY)
        yield GaugeMetricFamily(
            "berth_queue_heartbeat_timestamp_seconds",
            "When beat, queue and worker last did something together; 0 where that is long ago",
            value=datetime.fromisoformat(str(heartbeat)).timestamp() if heartbeat else 0,
        )
        runs = CounterMetricFamily("berth_tasks", "Runs of tasks, by how they ended", labels=["task", "state"])
        for field, count in self._redis.hgetall(RUNS_KEY).items():
            runs.add_metric(str(field).split(" ", 1), float(count))
        yield runs
        seconds = CounterMetricFamily("berth_task_seconds", "Time that runs of tasks took", labels=["task"])
        for task, total in self._redis.hgetall(SECONDS_KEY).items():
            seconds.add_metric([str(task)], float(total))
        yield seconds


def _sent_at(message: str | bytes) -> float:
    """Return when a waiting message was sent; 0 where there is none, or it does not say."""
    try:
        return float(json.loads(message)["headers"].get("sent_at", 0))
    except (ValueError, KeyError, AttributeError):
        return 0


def serve(redis: Redis, queues: Iterable[str], port: int) -> None:
    """Answer Prometheus, from a thread of its own. The networks of the container decide who reaches it."""
    # Its metrics are not asked for now, which would need a Redis that is there.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(QueueCollector(redis, queues))
    start_http_server(port, addr="0.0.0.0", registry=registry)  # noqa: S104
