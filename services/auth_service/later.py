"""Work that is done when the answer has left, so that the answer's time tells nothing about it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from prometheus_client import Counter

from shared.errors import Overloaded

logger = logging.getLogger("later")

SECONDS_LIMIT = 15

# No status says that it failed: the answer was a success.
FAILURES = Counter(
    "auth_work_after_answer_failures", "Sign-ups and mails whose work failed after the response was sent"
)
# A counter of its own: a flood of sign-ins causes it, so it says nothing about this release.
OVERLOADS = Counter("auth_work_after_answer_overloads", "Sign-ups given up under load after the response was sent")

Work = Callable[[], Awaitable[None]]


class Later:
    """Bounds how much of such work there is at once. Stopping the service waits for it, as it is part of a request."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0

    def plan(self, work: Work) -> Work:
        """Accept work, or refuse it before anything was promised."""
        if self._running >= self._limit:
            raise Overloaded("Too many people are asking for this at the moment. Please try again.")
        return self.insist(work)

    def insist(self, work: Work) -> Work:
        """Accept work that follows from something that has happened already."""

        async def run() -> None:
            self._running += 1
            try:
                async with asyncio.timeout(SECONDS_LIMIT):
                    await work()
            # The answer has left: all that can be done is to say so in the log.
            except Overloaded:
                OVERLOADS.inc()
                logger.warning("work after an answer was given up under load")
            except Exception:
                FAILURES.inc()
                logger.exception("work after an answer failed")
            finally:
                self._running -= 1

        return run
