"""The task queue: one configuration for those who send tasks and those who run them."""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Literal

from celery import Celery, signals
from kombu.exceptions import OperationalError

from shared import tracing
from shared.logging import request_id

logger = logging.getLogger("queue")

# A task that a killed worker had taken comes back after this long; longer than any task and its waits.
VISIBILITY_SECONDS = 300
SEND_SECONDS = 3

_ONCE_MORE = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}

# Header of a message: the request that it was sent for.
REQUEST_ID = "request_id"

SEND_VERIFICATION = "mail.send_verification"
SEND_NOTICE = "mail.send_notice"
# What the release before does not know waits here for a worker that does: one that meets an unknown task drops it.
NOTICES = "celery.notices"
Notice = Literal["already_registered", "reset", "password_changed", "guessing"]
ECHO = "maintenance.echo"
HEARTBEAT = "maintenance.heartbeat"
PURGE_DELIVERIES = "maintenance.purge_deliveries"


class QueueUnavailable(Exception):
    """The broker did not take the task."""


def new_celery(broker: str, backend: str | None = None) -> Celery:
    """A Celery application that speaks JSON and gives a task back when its worker dies.

    Who only sends has no result back end: with one, each task sent would cost a subscription.
    """
    signals.before_task_publish.connect(_stamp)
    app = Celery("berth", broker=broker, backend=backend, set_as_current=backend is not None)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        result_expires=86400,
        task_routes={SEND_NOTICE: {"queue": NOTICES}},
        timezone="UTC",
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        # However long the broker is away: giving up would end the worker.
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_timeout": SEND_SECONDS if backend is None else None,
            "socket_connect_timeout": SEND_SECONDS,
            "health_check_interval": 15,
        },
    )
    return app


def _stamp(headers: dict[str, Any], **_: Any) -> None:
    """Write on a message when it was sent, so that its age shows while it waits, and in which trace."""
    headers["sent_at"] = time.time()
    headers.update(tracing.active().headers())


class TaskQueue:
    """Sends tasks from an event loop. Celery's client blocks, so it gets a thread of its own."""

    def __init__(self, broker: str) -> None:
        self._app = new_celery(broker)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="queue")

    async def send(self, task: str, *, expires: int | None = None, **arguments: Any) -> None:
        """Hand a task to the broker, or raise QueueUnavailable within seconds. Of no use after `expires` seconds."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, copy_context().run, self._send, task, arguments, expires)
        except (OperationalError, OSError) as error:
            logger.error("the broker took no task", extra={"task": task}, exc_info=error)
            raise QueueUnavailable(task) from error
        logger.info("task sent", extra={"task": task})

    def _send(self, task: str, arguments: dict[str, Any], expires: int | None) -> None:
        headers = {REQUEST_ID: request_id.get()}
        # Once more, as the connection may be from before a restart of the broker. Not longer: a person waits.
        # The arguments hold links that work like passwords: they are for the worker, not for its monitors.
        with tracing.active().sending(task):
            self._app.send_task(
                task,
                kwargs=arguments,
                kwargsrepr="{...}",
                headers=headers,
                expires=expires,
                retry_policy=_ONCE_MORE,
            )

    async def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._app.close)
