"""What Prometheus is told about the queue and its tasks, under the worker's rights in Redis."""

import contextlib
import re
import time
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from prometheus_client import CollectorRegistry
from redis import Redis
from redis.exceptions import RedisError

from celery_worker.metrics import QueueCollector
from shared.queue import new_celery
from tests_integration.conftest import Container, Mailbox, Site, poll

pytestmark = pytest.mark.integration

QUEUE = "celery.figures"


def is_there(client: Redis) -> bool:
    with contextlib.suppress(RedisError):
        return bool(client.ping())
    return False


@pytest.fixture
def registry(redis: Container) -> Iterator[CollectorRegistry]:
    client: Redis = Redis.from_url(f"redis://celery_worker:worker-test@127.0.0.1:{redis.port}/0", decode_responses=True)
    poll(lambda: is_there(client), 30, "Redis")
    client.delete(QUEUE)
    registry = CollectorRegistry()
    registry.register(QueueCollector(client, [QUEUE]))
    yield registry
    client.delete(QUEUE)
    client.close()


def test_waiting_tasks_are_counted_and_the_next_one_has_an_age(redis: Container, registry: CollectorRegistry) -> None:
    def value(name: str) -> float | None:
        return registry.get_sample_value(name, {"queue": QUEUE})

    assert (value("berth_queue_length"), value("berth_queue_oldest_seconds")) == (0, 0)
    sender = new_celery(f"redis://celery_worker:worker-test@127.0.0.1:{redis.port}/0")
    before = time.time()
    for _ in range(3):
        sender.send_task("some.task", queue=QUEUE)
    assert value("berth_queue_length") == 3
    age = value("berth_queue_oldest_seconds")
    assert age is not None
    assert 0 < age <= time.time() - before


def answers(address: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(address).status_code == 200
    return False


def test_a_task_that_was_run_is_counted_with_its_time(site: Site, mailbox: Mailbox, address: str) -> None:
    def figures() -> tuple[float, float]:
        text = httpx.get(site.figures).raise_for_status().text
        runs = re.search(r'^berth_tasks_total\{state="success",task="mail.send_verification"\} (\S+)', text, re.M)
        took = re.search(r'^berth_task_seconds_total\{task="mail.send_verification"\} (\S+)', text, re.M)
        return float(runs[1]) if runs else 0, float(took[1]) if took else 0

    poll(lambda: answers(site.figures), 60, "the worker's figures")
    before = figures()
    account = {"email": address, "password": "a long password of mine"}
    assert httpx.post(f"{site.auth}/api/auth/register", json=account, timeout=30).status_code == 202
    assert mailbox.link_to(address)

    # Number and time are counted one after the other.
    def counted() -> tuple[float, float] | None:
        runs, took = figures()
        return (runs, took) if runs > before[0] and took > before[1] else None

    runs, took = poll(counted, 30, "the run to be counted with its time", figures)
    # A mail of the test before may have been counted only now.
    assert runs - before[0] <= 2
    assert took - before[1] < 30
