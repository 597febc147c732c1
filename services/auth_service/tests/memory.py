"""A store, counters and a queue that forget everything when the test ends, and tell what was asked of them."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from auth_service.limits import Limit
from auth_service.store import Reset, Session, User, Verification
from shared.queue import QueueUnavailable


class MemoryAuthStore:
    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.created: dict[str, datetime] = {}
        self.verifications: dict[str, Verification] = {}
        self.tries: dict[str, int] = {}
        self.resets: dict[str, Reset] = {}
        self.sessions: dict[str, Session] = {}
        self.revoked: set[str] = set()

    async def ping_database(self) -> None:
        pass

    async def place_user(self, user: User, now: datetime) -> User | None:
        found = await self.user_by_email(user.email) or user
        if found.verified:
            return None
        self.users[found.id], self.created[found.id] = found, now
        return found

    async def user_by_email(self, email: str) -> User | None:
        return next((user for user in self.users.values() if user.email == email), None)

    async def user_by_id(self, user_id: str) -> User | None:
        return self.users.get(user_id)

    async def change_password(self, user_id: str, old_hash: str, new_hash: str) -> bool:
        if self.users[user_id].password_hash != old_hash:
            return False
        self.users[user_id] = replace(self.users[user_id], password_hash=new_hash)
        return True

    async def reset_password(self, user_id: str, password_hash: str) -> User | None:
        self.users[user_id] = replace(self.users[user_id], password_hash=password_hash)
        return self.users[user_id]

    async def complete_registration(self, user_id: str, password_hash: str, name: str) -> User | None:
        if self.users[user_id].verified:
            return None
        self.users[user_id] = replace(self.users[user_id], password_hash=password_hash, name=name, verified=True)
        return self.users[user_id]

    async def purge_unverified(self, before: datetime) -> int:
        old = [each.id for each in self.users.values() if not each.verified and self.created[each.id] < before]
        for user_id in old:
            del self.users[user_id]
        return len(old)

    async def insert_verification(self, verification: Verification) -> None:
        self.verifications[verification.token_hash] = verification

    async def verification(self, token_hash: str, now: datetime) -> Verification | None:
        found = self.verifications.get(token_hash)
        return found if found and found.expires_at > now else None

    async def try_verification(self, token_hash: str, now: datetime, most: int) -> Verification | None:
        self.tries[token_hash] = self.tries.get(token_hash, 0) + 1
        return await self.verification(token_hash, now) if self.tries[token_hash] <= most else None

    async def newest_verification(self, account_id: str) -> Verification | None:
        found = [each for each in self.verifications.values() if each.account_id == account_id]
        return max(found, key=lambda each: each.expires_at, default=None)

    async def close_verifications(self, account_id: str, but: str = "") -> None:
        kept = self.verifications.items()
        self.verifications = {key: each for key, each in kept if each.account_id != account_id or key == but}

    async def insert_reset(self, reset: Reset) -> None:
        self.resets[reset.token_hash] = reset

    async def reset(self, token_hash: str, now: datetime) -> Reset | None:
        found = self.resets.get(token_hash)
        return found if found and found.expires_at > now else None

    async def take_reset(self, token_hash: str, now: datetime) -> bool:  # noqa: ARG002  # the interface has it
        return self.resets.pop(token_hash, None) is not None

    async def delete_resets(self, user_id: str) -> None:
        self.resets = {key: each for key, each in self.resets.items() if each.user_id != user_id}

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

    async def revoke_sessions(self, user_id: str, but: str, seconds: int) -> None:
        for session in list(self.sessions.values()):
            if session.user_id == user_id and session.id != but:
                await self.revoke_session(session.id, seconds)

    async def is_revoked(self, session_id: str) -> bool:
        return session_id in self.revoked


class MemoryCounters:
    """Counts; time passes when a test says so."""

    def __init__(self) -> None:
        self.counts: dict[str, tuple[int, int]] = {}

    def let_pass(self, seconds: int) -> None:
        self.counts = {key: (n, left - seconds) for key, (n, left) in self.counts.items() if left > seconds}

    async def read(self, *keys: str) -> list[tuple[int, int]]:
        return [self.counts.get(key, (0, 0)) for key in keys]

    async def add(self, seconds: dict[str, int]) -> dict[str, int]:
        for key, window in seconds.items():
            count, left = self.counts.get(key, (0, window))
            self.counts[key] = (count + 1, left)
        return {key: self.counts[key][0] for key in seconds}

    async def take(self, limits: list[Limit]) -> tuple[Limit, int] | None:
        for limit in limits:
            if self.counts.get(limit.key, (0, 0))[0] >= limit.most:
                return limit, self.counts[limit.key][1]
        await self.add({limit.key: limit.seconds for limit in limits})
        return None

    async def give_back(self, *keys: str) -> None:
        for key in keys:
            count, left = self.counts[key]
            self.counts[key] = (count - 1, left)

    async def claim(self, key: str, seconds: int) -> int:
        if key in self.counts:
            return self.counts[key][1]
        self.counts[key] = (1, seconds)
        return 0

    async def remember(self, key: str, seconds: int, *forgotten: str) -> None:
        self.counts[key] = (1, seconds)
        for other in forgotten:
            self.counts.pop(other, None)


class MemoryQueue:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.is_down = False

    async def send(self, task: str, *, expires: int | None = None, **arguments: Any) -> None:
        if self.is_down:
            raise QueueUnavailable(task)
        self.sent.append({"task": task, "expires": expires, **arguments})

    def to(self, email: str) -> list[dict[str, Any]]:
        return [mail for mail in self.sent if mail["email"] == email]

    @property
    def last_token(self) -> str:
        return str(self.sent[-1]["link"]).partition("token=")[2]
