"""A store and a queue that forget everything when the test ends."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from auth_service.store import Session, User
from shared.queue import QueueUnavailable


class MemoryAuthStore:
    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.verifications: dict[str, tuple[str, datetime]] = {}
        self.sessions: dict[str, Session] = {}
        self.revoked: set[str] = set()
        self.failed: dict[str, int] = {}
        self.mailed: set[str] = set()

    async def insert_user(self, user: User, now: datetime) -> bool:  # noqa: ARG002  # the interface has it
        if any(other.email == user.email for other in self.users.values()):
            return False
        self.users[user.id] = user
        return True

    async def user_by_email(self, email: str) -> User | None:
        return next((user for user in self.users.values() if user.email == email), None)

    async def user_by_id(self, user_id: str) -> User | None:
        return self.users.get(user_id)

    async def set_password_hash(self, user_id: str, password_hash: str) -> None:
        self.users[user_id] = replace(self.users[user_id], password_hash=password_hash)

    async def insert_verification(self, token_hash: str, user_id: str, expires_at: datetime) -> None:
        self.verifications[token_hash] = (user_id, expires_at)

    async def verify_user(self, token_hash: str, now: datetime) -> User | None:
        user_id, expires_at = self.verifications.get(token_hash, ("", now))
        if expires_at <= now:
            return None
        self.users[user_id] = replace(self.users[user_id], verified=True)
        return self.users[user_id]

    async def insert_session(self, session: Session) -> None:
        self.sessions[session.id] = session

    async def session(self, session_id: str) -> Session | None:
        return self.sessions.get(session_id)

    async def rotate_session(
        self, session_id: str, old_hash: str, new_hash: str, now: datetime, expires_at: datetime
    ) -> Session | None:
        session = self.sessions.get(session_id)
        if session is None or session.revoked or session.token_hash != old_hash or session.expires_at <= now:
            return None
        self.sessions[session_id] = replace(
            session, token_hash=new_hash, previous_hash=old_hash, rotated_at=now, expires_at=expires_at
        )
        return self.sessions[session_id]

    async def revoke_session(self, session_id: str, seconds: int) -> None:  # noqa: ARG002  # the interface has it
        self.sessions[session_id] = replace(self.sessions[session_id], revoked=True)
        self.revoked.add(session_id)

    async def is_revoked(self, session_id: str) -> bool:
        return session_id in self.revoked

    async def failures(self, who: str) -> tuple[int, int]:
        return self.failed.get(who, 0), 900

    async def add_failure(self, who: str, seconds: int) -> None:  # noqa: ARG002  # the interface has it
        self.failed[who] = self.failed.get(who, 0) + 1

    async def forget_failures(self, who: str) -> None:
        self.failed.pop(who, None)

    async def may_mail(self, who: str, seconds: int) -> bool:  # noqa: ARG002  # the interface has it
        if who in self.mailed:
            return False
        self.mailed.add(who)
        return True

    async def forget_mail(self, who: str) -> None:
        self.mailed.discard(who)


class MemoryQueue:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.is_down = False

    async def send(self, task: str, **arguments: Any) -> None:
        if self.is_down:
            raise QueueUnavailable(task)
        self.sent.append({"task": task, **arguments})

    @property
    def last_token(self) -> str:
        return str(self.sent[-1]["link"]).partition("token=")[2]
