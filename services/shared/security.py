"""Passwords: argon2id, off the event loop, never more at a time than the machine can bear."""

import asyncio
import threading
import unicodedata
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from shared.errors import Overloaded

T = TypeVar("T")
Line = deque[tuple[Future[Any], Callable[[], Any]]]

# 16 x 25 ms: whoever waits longer than that is better told to come back.
QUEUE_LIMIT = 16
# What comes after every sign-in is given up then: before the 15 s of work after an answer, which would be a failure.
TURN_SECONDS = 10


class Passwords:
    """Hashes and verifies in one thread; callers beyond the queue's end get a 503.

    One thread, so that memory is bounded. What can wait takes no slot and comes after everything else.
    """

    def __init__(self, queue_limit: int = QUEUE_LIMIT) -> None:
        # OWASP's second choice: 25 ms and 19 MiB. The library's default takes eight times as long.
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="argon2")
        self._slots = threading.BoundedSemaphore(queue_limit)
        self._urgent: Line = deque()
        self._later: Line = deque()
        # Verified against when nobody has the email, so that the answer takes as long either way.
        self._nobody = self._hasher.hash("the hash of nobody")

    async def hash(self, password: str) -> str:
        return await self._run(lambda: self._hasher.hash(_normal(password)))

    async def hash_later(self, password: str) -> str:
        """Hash when no sign-in is waiting, or raise Overloaded. The caller limits how many run at once."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                return await self._take_turn(self._later, lambda: self._hasher.hash(_normal(password)))
        except TimeoutError as error:
            raise Overloaded("Too many people are signing in at this moment. Please try again.") from error

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Tell whether the password is right; takes equally long when there is no hash."""
        matches = await self._run(lambda: self._verify(_normal(password), hashed or self._nobody))
        return matches and hashed is not None

    def is_outdated(self, hashed: str) -> bool:
        """Tell whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        for turn, _ in (*self._urgent, *self._later):
            turn.cancel()

    def _verify(self, password: str, hashed: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._slots.acquire(blocking=False):
            raise Overloaded("Too many people are signing in at this moment. Please try again.")
        # The slot is free when the work is done, not when the caller stops waiting for it.
        return await self._take_turn(self._urgent, work, self._slots.release)

    async def _take_turn(self, line: Line, work: Callable[[], T], done: Callable[[], object] = lambda: None) -> T:
        turn: Future[T] = Future()
        turn.add_done_callback(lambda _: done())
        line.append((turn, work))
        self._executor.submit(self._next)
        return await asyncio.wrap_future(turn)

    def _next(self) -> None:
        turn, work = (self._urgent or self._later).popleft()
        if not turn.set_running_or_notify_cancel():
            return
        try:
            turn.set_result(work())
        except Exception as error:
            turn.set_exception(error)


def _normal(password: str) -> str:
    # The same letters typed on another keyboard may come as other code points.
    return unicodedata.normalize("NFKC", password)
