"""Every query of auth_service: accounts, sessions and verifications in Mongo, what expires in Redis."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from shared.clients.cache import Cache
from shared.clients.database import Database
from shared.tokens import revocation_key


@dataclass(frozen=True)
class User:
    id: str
    email: str
    name: str
    password_hash: str
    verified: bool


@dataclass(frozen=True)
class Session:
    """A family of refresh tokens: one sign-in on one device."""

    id: str
    user_id: str
    token_hash: str
    previous_hash: str
    rotated_at: datetime
    expires_at: datetime
    revoked: bool


class AuthStore(Protocol):
    """What the rules need to be remembered."""

    async def insert_user(self, user: User, now: datetime) -> bool: ...
    async def user_by_email(self, email: str) -> User | None: ...
    async def user_by_id(self, user_id: str) -> User | None: ...
    async def set_password_hash(self, user_id: str, password_hash: str) -> None: ...

    async def insert_verification(self, token_hash: str, user_id: str, expires_at: datetime) -> None: ...
    async def verify_user(self, token_hash: str, now: datetime) -> User | None: ...

    async def insert_session(self, session: Session) -> None: ...
    async def session(self, session_id: str) -> Session | None: ...
    async def rotate_session(
        self, session_id: str, old_hash: str, new_hash: str, now: datetime, expires_at: datetime
    ) -> Session | None: ...
    async def revoke_session(self, session_id: str, seconds: int) -> None: ...
    async def is_revoked(self, session_id: str) -> bool: ...

    async def failures(self, who: str) -> tuple[int, int]: ...
    async def add_failure(self, who: str, seconds: int) -> None: ...
    async def forget_failures(self, who: str) -> None: ...
    async def may_mail(self, who: str, seconds: int) -> bool: ...
    async def forget_mail(self, who: str) -> None: ...


class MongoRedisAuthStore:
    """The store of production."""

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache
        self._indexed = False

    async def ping_database(self) -> None:
        await self._ensure_indexes()
        await self._database.command("ping")

    async def ping_cache(self) -> None:
        await self._cache.ping()

    async def insert_user(self, user: User, now: datetime) -> bool:
        """False when the email is taken: the unique index decides, not a look-up that two could pass."""
        await self._ensure_indexes()
        document = {
            "_id": user.id,
            "email": user.email,
            "name": user.name,
            "password_hash": user.password_hash,
            "verified": user.verified,
            "created_at": now,
        }
        try:
            await self._database.users.insert_one(document)
        except DuplicateKeyError:
            return False
        return True

    async def user_by_email(self, email: str) -> User | None:
        return _user(await self._database.users.find_one({"email": email}))

    async def user_by_id(self, user_id: str) -> User | None:
        return _user(await self._database.users.find_one({"_id": user_id}))

    async def set_password_hash(self, user_id: str, password_hash: str) -> None:
        await self._database.users.update_one({"_id": user_id}, {"$set": {"password_hash": password_hash}})

    async def insert_verification(self, token_hash: str, user_id: str, expires_at: datetime) -> None:
        await self._database.verifications.insert_one({"_id": token_hash, "user_id": user_id, "expires_at": expires_at})

    async def verify_user(self, token_hash: str, now: datetime) -> User | None:
        found = await self._database.verifications.find_one({"_id": token_hash, "expires_at": {"$gt": now}})
        if found is None:
            return None
        return _user(
            await self._database.users.find_one_and_update(
                {"_id": found["user_id"]},
                {"$set": {"verified": True}},
                return_document=ReturnDocument.AFTER,
            )
        )

    async def insert_session(self, session: Session) -> None:
        document = {name: value for name, value in vars(session).items() if name != "id"}
        await self._database.sessions.insert_one({"_id": session.id, **document})

    async def session(self, session_id: str) -> Session | None:
        return _session(await self._database.sessions.find_one({"_id": session_id}))

    async def rotate_session(
        self, session_id: str, old_hash: str, new_hash: str, now: datetime, expires_at: datetime
    ) -> Session | None:
        """Swap the token in one step; None when it was not the current one of a living session."""
        return _session(
            await self._database.sessions.find_one_and_update(
                {"_id": session_id, "token_hash": old_hash, "revoked": False, "expires_at": {"$gt": now}},
                {
                    "$set": {
                        "token_hash": new_hash,
                        "previous_hash": old_hash,
                        "rotated_at": now,
                        "expires_at": expires_at,
                    }
                },
                return_document=ReturnDocument.AFTER,
            )
        )

    async def revoke_session(self, session_id: str, seconds: int) -> None:
        """End a session, and for as long as its access tokens could still live, tell every service."""
        await self._database.sessions.update_one({"_id": session_id}, {"$set": {"revoked": True}})
        await self._cache.set(revocation_key(session_id), "1", ex=seconds)

    async def is_revoked(self, session_id: str) -> bool:
        return bool(await self._cache.exists(revocation_key(session_id)))

    async def failures(self, who: str) -> tuple[int, int]:
        """How many sign-ins failed, and in how many seconds that is forgotten."""
        async with self._cache.pipeline(transaction=False) as pipeline:
            pipeline.get(_failures_key(who))
            pipeline.ttl(_failures_key(who))
            count, seconds = await pipeline.execute()
        return int(count or 0), max(int(seconds), 1)

    async def add_failure(self, who: str, seconds: int) -> None:
        # The first failure starts the window; SET NX keeps it from being prolonged by the next.
        async with self._cache.pipeline(transaction=True) as pipeline:
            pipeline.set(_failures_key(who), 0, ex=seconds, nx=True)
            pipeline.incr(_failures_key(who))
            await pipeline.execute()

    async def forget_failures(self, who: str) -> None:
        await self._cache.delete(_failures_key(who))

    async def may_mail(self, who: str, seconds: int) -> bool:
        return bool(await self._cache.set(_mail_key(who), "1", ex=seconds, nx=True))

    async def forget_mail(self, who: str) -> None:
        await self._cache.delete(_mail_key(who))

    async def _ensure_indexes(self) -> None:
        # Not at start: the service starts without its database too, and says so in /readyz.
        if not self._indexed:
            await ensure_indexes(self._database)
            self._indexed = True


async def ensure_indexes(database: Database) -> None:
    """What is there already stays as it is."""
    await database.users.create_index("email", unique=True)
    await database.verifications.create_index("expires_at", expireAfterSeconds=0)
    # A week longer than the session, so that reuse of its last token is still recognised.
    await database.sessions.create_index("expires_at", expireAfterSeconds=int(timedelta(days=7).total_seconds()))


async def upsert_verified_user(database: Database, user: User, now: datetime) -> None:
    """Make this account, or give the one with its email this password and count it as verified."""
    await database.users.update_one(
        {"email": user.email},
        {
            "$set": {"password_hash": user.password_hash, "verified": user.verified},
            "$setOnInsert": {"_id": user.id, "name": user.name, "created_at": now},
        },
        upsert=True,
    )


def _failures_key(who: str) -> str:
    return f"ratelimit:signin:{who}"


def _mail_key(who: str) -> str:
    return f"ratelimit:mail:{who}"


def _user(document: dict[str, Any] | None) -> User | None:
    if document is None:
        return None
    return User(
        document["_id"],
        document["email"],
        document["name"],
        document["password_hash"],
        document["verified"],
    )


def _session(document: dict[str, Any] | None) -> Session | None:
    return document and Session(id=document.pop("_id"), **document)  # type: ignore[return-value]
