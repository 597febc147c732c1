"""Two beats at once, as during a release: each entry runs once, and the second goes on where the first stopped."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from celery_worker.schedule import LOCK_KEY, RUNS_KEY, OneBeat
from shared.queue import new_celery
from tests_integration.conftest import Container, poll

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("admin")]

DAY = timedelta(days=1).total_seconds()


class CountingBeat(OneBeat):
    """Tells what it would send, and takes no broker for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.sent: list[str] = []
        super().__init__(*args, **kwargs)

    def apply_async(self, entry: Any, *_: Any, **__: Any) -> None:
        self.sent.append(entry.name)


def answers(client: Redis) -> bool:
    with contextlib.suppress(RedisError):
        return bool(client.ping())
    return False


@pytest.fixture
def admin(redis: Container) -> Iterator[Redis]:
    client: Redis = Redis.from_url(f"redis://admin:admin-test@127.0.0.1:{redis.port}/0", decode_responses=True)
    poll(lambda: answers(client), 30, "Redis")
    client.delete(LOCK_KEY, RUNS_KEY)
    yield client
    client.delete(LOCK_KEY, RUNS_KEY)
    client.close()


def new_beat(redis: Container, every: float) -> CountingBeat:
    # With the worker's rights in production, so that those are tried too.
    app = new_celery(f"redis://celery_worker:worker-test@127.0.0.1:{redis.port}/0")
    app.conf.beat_schedule = {"entry": {"task": "some.task", "schedule": every}}
    app.conf.beat_max_loop_interval = 1
    return CountingBeat(app)


def turn(*beats: CountingBeat, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for beat in beats:
            beat.tick()
        time.sleep(0.02)


def turn_until(done: Callable[[], object], *beats: CountingBeat) -> None:
    poll(lambda: [beat.tick() for beat in beats] and done(), 30, "what the beats are to send")


def test_of_two_beats_one_counts(redis: Container) -> None:
    first, second = new_beat(redis, 0.5), new_beat(redis, 0.5)
    began = time.monotonic()
    turn_until(lambda: len(first.sent) >= 3, first, second)
    # One at once, and then one each half second.
    assert len(first.sent) <= 2 + (time.monotonic() - began) / 0.5
    assert second.sent == []


def test_the_next_beat_goes_on_at_once_when_one_ends_in_good_order(redis: Container) -> None:
    first, second = new_beat(redis, 0.3), new_beat(redis, 0.3)
    turn(first, second, seconds=0.7)
    first.close()
    poll(lambda: second.tick() is not None and second.sent, 10, "the second beat's first task, before the lock ends")


def test_what_ran_a_moment_ago_is_not_run_again_by_the_next_beat(redis: Container, admin: Redis) -> None:
    first = new_beat(redis, DAY)
    admin.hset(RUNS_KEY, "entry", (datetime.now(UTC) - timedelta(days=2)).isoformat())
    turn_until(lambda: first.sent == ["entry"], first)
    first.close()
    second = new_beat(redis, DAY)
    turn(second, seconds=0.5)
    assert second.sent == []


def test_a_beat_that_was_killed_is_replaced_when_its_lock_runs_out(redis: Container, admin: Redis) -> None:
    first, second = new_beat(redis, 0.2), new_beat(redis, 0.2)
    turn(first, second, seconds=0.5)
    assert 0 < admin.ttl(LOCK_KEY) <= 15
    admin.expire(LOCK_KEY, 1)
    poll(lambda: second.tick() is not None and second.sent, 30, "the second beat's first task")
    before = len(first.sent)
    first.tick()
    assert len(first.sent) == before, "the first one, awake again, must see that it no longer counts"
