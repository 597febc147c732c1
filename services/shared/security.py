"""Passwords: argon2id, off the event loop, never more at a time than the machine can bear."""

import asyncio
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from shared.errors import Unavailable

T = TypeVar("T")

# 16 x 25 ms: whoever waits longer than that is better told to come back.
QUEUE_LIMIT = 16


class Passwords:
    """Hashes and verifies in one thread; callers beyond the queue's end get a 503."""

    def __init__(self, queue_limit: int = QUEUE_LIMIT) -> None:
        # OWASP's second choice: 25 ms and 19 MiB. The library's default takes eight times as long.
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="argon2")
        self._slots = threading.BoundedSemaphore(queue_limit)
        # Verified against when nobody has the email, so that the answer takes as long either way.
        self._nobody = self._hasher.hash("the hash of nobody")

    async def hash(self, password: str) -> str:
        return await self._run(lambda: self._hasher.hash(_normal(password)))

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Tell whether the password is right; takes equally long when there is no hash."""
        matches = await self._run(lambda: self._verify(_normal(password), hashed or self._nobody))
        return matches and hashed is not None

    def is_outdated(self, hashed: str) -> bool:
        """Tell whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password: str, hashed: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._slots.acquire(blocking=False):
            raise Unavailable("Too many people are signing in at this moment. Please try again.")
        future = self._executor.submit(work)
        # The slot is free when the work is done, not when the caller stops waiting for it.
        future.add_done_callback(lambda _: self._slots.release())
        return await asyncio.wrap_future(future)


def _normal(password: str) -> str:
    # The same letters typed on another keyboard may come as other code points.
    return unicodedata.normalize("NFKC", password)
