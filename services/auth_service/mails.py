"""What is sent to owners of addresses. No HTTP, no mail server: the worker sends."""

import secrets
import uuid
from dataclasses import replace
from datetime import timedelta

from auth_service.limits import Allowance, Limits, digest
from auth_service.sessions import now_in_milliseconds
from auth_service.settings import AuthSettings
from auth_service.store import AuthStore, Reset, Verification
from shared.queue import SEND_NOTICE, SEND_VERIFICATION, Notice, QueueUnavailable, TaskQueue

# For word of what its receiver has done.
NOTHING = Allowance(())


class Mails:
    """Makes links, keeps their hashes, and hands mails to the queue."""

    def __init__(self, settings: AuthSettings, store: AuthStore, limits: Limits, queue: TaskQueue) -> None:
        self._settings = settings
        self._store = store
        self._limits = limits
        self._queue = queue

    async def send_verification(self, email: str, registration: Verification, taken: Allowance) -> None:
        """Send the link of one registration."""
        token = await self.keep_verification(registration)
        # Behind the #: browsers send it to no server, so it is in no log and no Referer.
        link = f"{self._settings.site}/verify#token={token}"
        await self._send(taken, SEND_VERIFICATION, message_id=uuid.uuid4().hex, email=email, link=link)

    async def keep_verification(self, registration: Verification) -> str:
        """Remember a registration. Until its link is asked for again, nobody has the token that this returns."""
        token = secrets.token_urlsafe(32)
        end = now_in_milliseconds() + timedelta(seconds=self._settings.verification_seconds)
        await self._store.insert_verification(replace(registration, token_hash=digest(token), expires_at=end))
        return token

    async def send_reset(self, email: str, user_id: str, taken: Allowance) -> None:
        token = secrets.token_urlsafe(32)
        seconds = self._settings.reset_seconds
        end = now_in_milliseconds() + timedelta(seconds=seconds)
        await self._store.insert_reset(Reset(digest(token), user_id, end))
        await self._notice("reset", email, taken, f"{self._settings.site}/reset#token={token}", seconds)

    async def send_notice(self, kind: Notice, email: str, taken: Allowance = NOTHING) -> None:
        await self._notice(kind, email, taken)

    async def _notice(
        self, kind: Notice, email: str, taken: Allowance, link: str = "", expires: int | None = None
    ) -> None:
        message_id = uuid.uuid4().hex
        await self._send(taken, SEND_NOTICE, expires=expires, message_id=message_id, email=email, kind=kind, link=link)

    async def _send(self, taken: Allowance, task: str, **arguments: object) -> None:
        try:
            await self._queue.send(task, **arguments)  # type: ignore[arg-type]  # expires is an int
        except QueueUnavailable:
            # Only this mail waits, not the next try.
            await self._limits.give_back(taken)
            raise
