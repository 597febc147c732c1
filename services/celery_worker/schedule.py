"""Beat's clock, made for two beats at once: during a release both colours have one, and only one may count."""

import uuid
from datetime import UTC, datetime
from typing import Any

from celery.beat import ScheduleEntry, Scheduler
from celery.utils.log import get_logger
from redis import Redis
from redis.exceptions import RedisError

logger = get_logger("beat")

LOCK_KEY = "celery-beat:lock"
RUNS_KEY = "celery-beat:runs"
# Renewed at each round, so every two seconds or so. This long nothing is scheduled after a beat was killed;
# one that ends in good order gives the lock back.
LOCK_SECONDS = 15

# Whoever holds the lock keeps it; nobody holds it: ours.
_TAKE = """
local holder = redis.call('get', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'EX', ARGV[2])
return holder and 1 or 2
"""
# Write down that an entry runs now, in the same breath as the look who holds the lock.
_CLAIM = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('hset', KEYS[2], ARGV[2], ARGV[3])
return 1
"""
_GIVE_BACK = """
if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end
return 1
"""


class OneBeat(Scheduler):  # type: ignore[misc]  # Celery ships no types
    """A scheduler that waits while another one is at it, and then goes on where that one stopped.

    When each entry ran last is in Redis, so that a new beat neither repeats what the old one did a moment ago nor
    misses what came due in between.
    """

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        self._name = uuid.uuid4().hex
        self._holds = False
        self._redis: Redis = Redis.from_url(
            app.conf.broker_url, decode_responses=True, socket_timeout=5, socket_connect_timeout=5
        )
        super().__init__(app, *args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        try:
            taken = self._redis.eval(_TAKE, 1, LOCK_KEY, self._name, LOCK_SECONDS)
        except RedisError as error:
            logger.warning("beat's lock cannot be asked: %s", error)
            self._holds = False
            return float(self.max_interval)
        if not taken:
            self._holds = False
            return float(self.max_interval)
        if not self._holds:
            self._go_on()
            self._holds = True
        return min(float(super().tick(*args, **kwargs)), float(self.max_interval))

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Send an entry's task, unless the lock was lost since this round began."""
        if self._redis.eval(_CLAIM, 2, LOCK_KEY, RUNS_KEY, self._name, entry.name, datetime.now(UTC).isoformat()):
            super().apply_entry(entry, producer=producer)

    def close(self) -> None:
        try:
            self._redis.eval(_GIVE_BACK, 1, LOCK_KEY, self._name)
        except RedisError as error:
            logger.warning("beat's lock stays until it runs out: %s", error)
        super().close()

    def _go_on(self) -> None:
        runs = self._redis.hgetall(RUNS_KEY)
        for name, entry in self.schedule.items():
            if name in runs:
                entry.last_run_at = datetime.fromisoformat(str(runs[name]))
        # Made anew from the schedule at the next round.
        self._heap = None
        logger.info("this beat has the lock")
