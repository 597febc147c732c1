"""Wiring of celery_worker: the application, its schedule, and the signs of life that Docker looks for."""

import time
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.schedules import crontab
from redis import Redis

from celery_worker import metrics, tasks
from celery_worker.schedule import OneBeat
from celery_worker.settings import WorkerSettings
from shared import tracing
from shared.logging import configure_logging, request_id
from shared.queue import HEARTBEAT, NOTICES, PURGE_DELIVERIES, REQUEST_ID, new_celery

# The only place that is writable in a read-only container. The image's health check looks at it.
ALIVE = Path("/dev/shm/celery-alive")  # noqa: S108

HEARTBEAT_EVERY_SECONDS = 30


class AliveScheduler(OneBeat):
    """Beat's scheduler, which touches a file at each round so that a stuck beat shows."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        ALIVE.touch()
        return super().tick(*args, **kwargs)


def own_queue(settings: WorkerSettings) -> str:
    """A queue that only this colour's worker reads, so that a release can be tried out; all read the common one."""
    return f"celery.{settings.colour or 'own'}"


def queues(app: Celery, settings: WorkerSettings) -> list[str]:
    """What the worker of this release reads."""
    return [app.conf.task_default_queue, NOTICES, own_queue(settings)]


def create_app(settings: WorkerSettings, service: str = "celery_worker") -> Celery:
    """Build the application with its tasks and schedule."""
    redis = settings.redis_uri.get_secret_value()
    app = new_celery(redis, backend=redis)
    app.conf.update(
        include=[tasks.__name__],
        worker_concurrency=settings.worker_concurrency,
        task_soft_time_limit=45,
        task_time_limit=60,
        # A stopping worker hands waiting messages back instead of keeping them until the timeout.
        worker_soft_shutdown_timeout=5,
        worker_enable_soft_shutdown_on_idle=True,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_max_tasks_per_child=1000,
        beat_scheduler=AliveScheduler,
        beat_max_loop_interval=2,
        beat_schedule={
            "heartbeat": {
                "task": HEARTBEAT,
                "schedule": HEARTBEAT_EVERY_SECONDS,
                # Nobody needs yesterday's: they do not pile up while no worker runs.
                "options": {"expires": HEARTBEAT_EVERY_SECONDS},
            },
            "purge deliveries": {"task": PURGE_DELIVERIES, "schedule": crontab(hour=3, minute=20)},
        },
    )

    def log_as_json(**_: Any) -> None:
        configure_logging(service, settings.log_level, settings.release, settings.colour)

    signals.setup_logging.connect(log_as_json, weak=False)
    signals.worker_process_init.connect(lambda **_: tracing.begin(service, settings).trace_tasks(), weak=False)
    signals.worker_process_shutdown.connect(lambda **_: tracing.active().close(), weak=False)
    signals.task_prerun.connect(_take_request_id)
    signals.heartbeat_sent.connect(_touch_alive)

    def serve_metrics(**_: Any) -> None:
        asked: Redis = Redis.from_url(redis, decode_responses=True, socket_timeout=5, socket_connect_timeout=5)
        metrics.serve(asked, queues(app, settings), settings.metrics_port)

    signals.worker_ready.connect(serve_metrics, weak=False)
    signals.task_prerun.connect(_note_start)
    signals.task_postrun.connect(_count_run)
    return app


def _take_request_id(task: Any, **_: Any) -> None:
    # A process runs one task after the other, so each begins by taking its own, or none.
    request_id.set((task.request.headers or {}).get(REQUEST_ID, ""))


# When the tasks that this process runs began.
_began: dict[str, float] = {}


def _note_start(task_id: str, **_: Any) -> None:
    _began[task_id] = time.monotonic()


def _count_run(task_id: str, task: Any, state: str | None, **_: Any) -> None:
    seconds = time.monotonic() - _began.pop(task_id, time.monotonic())
    metrics.count_run(tasks.resources().cache, task.name, state or "unknown", seconds)


def _touch_alive(**_: Any) -> None:
    # Sent by the consumer's own loop every two seconds, and only while the broker is connected.
    ALIVE.touch()
