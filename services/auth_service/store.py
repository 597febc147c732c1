"""Every query of auth_service: accounts, sessions and verifications in Mongo, what expires in Redis."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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


@dataclass(frozen=True)
class Verification:
    """One registration: what the account will be, once its link was opened and its password typed."""

    account_id: str
    name: str
    # Empty where the release before made it.
    password_hash: str
    # What the release before verifies by: the account as it stands, or nothing.
    user_id: str
    token_hash: str = ""
    expires_at: datetime = datetime.min


@dataclass(frozen=True)
class Reset:
    token_hash: str
    user_id: str
    expires_at: datetime


class AuthStore(Protocol):
    """What the rules need to be remembered."""

    async def ping_database(self) -> None: ...

    async def place_user(self, user: User, now: datetime) -> User | None: ...
    async def user_by_email(self, email: str) -> User | None: ...
    async def user_by_id(self, user_id: str) -> User | None: ...
    async def change_password(self, user_id: str, old_hash: str, new_hash: str) -> bool: ...
    async def reset_password(self, user_id: str, password_hash: str) -> User | None: ...
    async def complete_registration(self, user_id: str, password_hash: str, name: str) -> User | None: ...
    async def purge_unverified(self, before: datetime) -> int: ...

    async def insert_verification(self, verification: Verification) -> None: ...
    async def verification(self, token_hash: str, now: datetime) -> Verification | None: ...
    async def try_verification(self, token_hash: str, now: datetime, most: int) -> Verification | None: ...
    async def newest_verification(self, account_id: str) -> Verification | None: ...
    async def close_verifications(self, account_id: str, but: str = "") -> None: ...

    async def insert_reset(self, reset: Reset) -> None: ...
    async def reset(self, token_hash: str, now: datetime) -> Reset | None: ...
    async def take_reset(self, token_hash: str, now: datetime) -> bool: ...
    async def delete_resets(self, user_id: str) -> None: ...

    async def insert_session(self, session: Session) -> None: ...
    async def session(self, session_id: str) -> Session | None: ...
    async def rotate_session(
        self, session_id: str, old_hash: str, new_hash: str, now: datetime, expires_at: datetime
    ) -> Session | None: ...
    async def revoke_session(self, session_id: str, seconds: int) -> None: ...
    async def revoke_sessions(self, user_id: str, but: str, seconds: int) -> None: ...
    async def is_revoked(self, session_id: str) -> bool: ...


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

    async def place_user(self, user: User, now: datetime) -> User | None:
        """Have an unverified account for the email, this one or the one that is there; None when it is verified.

        One step: the unique index decides, not a look-up that two could pass.
        """
        await self._ensure_indexes()
        new = {"_id": user.id, "name": user.name, "password_hash": user.password_hash}
        try:
            return _user(
                await self._database.users.find_one_and_update(
                    {"email": user.email, "verified": False},
                    {"$set": {"created_at": now}, "$setOnInsert": new},
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                )
            )
        except DuplicateKeyError:
            # Verified, or placed by another request at this very moment.
            found = await self.user_by_email(user.email)
            return None if found is None or found.verified else found

    async def user_by_email(self, email: str) -> User | None:
        return _user(await self._database.users.find_one({"email": email}))

    async def user_by_id(self, user_id: str) -> User | None:
        return _user(await self._database.users.find_one({"_id": user_id}))

    async def change_password(self, user_id: str, old_hash: str, new_hash: str) -> bool:
        """False when the password is not the old one any more."""
        changed = await self._database.users.update_one(
            {"_id": user_id, "password_hash": old_hash}, {"$set": {"password_hash": new_hash}}
        )
        return changed.modified_count == 1

    async def reset_password(self, user_id: str, password_hash: str) -> User | None:
        return _user(
            await self._database.users.find_one_and_update(
                {"_id": user_id},
                {"$set": {"password_hash": password_hash}},
                return_document=ReturnDocument.AFTER,
            )
        )

    async def complete_registration(self, user_id: str, password_hash: str, name: str) -> User | None:
        """None when the account is verified already: then it stays as it is."""
        return _user(
            await self._database.users.find_one_and_update(
                {"_id": user_id, "verified": False},
                {"$set": {"password_hash": password_hash, "name": name, "verified": True}},
                return_document=ReturnDocument.AFTER,
            )
        )

    async def purge_unverified(self, before: datetime) -> int:
        # No TTL index: the release before verifies without taking anything away that such an index would look at.
        return (
            await self._database.users.delete_many({"verified": False, "created_at": {"$lt": before}})
        ).deleted_count

    async def insert_verification(self, verification: Verification) -> None:
        document = {name: value for name, value in vars(verification).items() if name != "token_hash"}
        await self._database.verifications.insert_one({"_id": verification.token_hash, **document, "tries": 0})

    async def verification(self, token_hash: str, now: datetime) -> Verification | None:
        return _verification(
            await self._database.verifications.find_one({"_id": token_hash, "expires_at": {"$gt": now}})
        )

    async def try_verification(self, token_hash: str, now: datetime, most: int) -> Verification | None:
        """Count one guess and return what it is a guess at; None when there were too many."""
        found = await self._database.verifications.find_one_and_update(
            {"_id": token_hash, "expires_at": {"$gt": now}},
            {"$inc": {"tries": 1}},
            return_document=ReturnDocument.AFTER,
        )
        return None if found is None or found["tries"] > most else _verification(found)

    async def newest_verification(self, account_id: str) -> Verification | None:
        return _verification(
            await self._database.verifications.find_one({"account_id": account_id}, sort=[("expires_at", -1)])
        )

    async def close_verifications(self, account_id: str, but: str = "") -> None:
        await self._database.verifications.delete_many(
            {"$or": [{"account_id": account_id}, {"user_id": account_id}], "_id": {"$ne": but}}
        )

    async def insert_reset(self, reset: Reset) -> None:
        await self._database.resets.insert_one(
            {"_id": reset.token_hash, "user_id": reset.user_id, "expires_at": reset.expires_at}
        )

    async def reset(self, token_hash: str, now: datetime) -> Reset | None:
        found = await self._database.resets.find_one({"_id": token_hash, "expires_at": {"$gt": now}})
        return Reset(found["_id"], found["user_id"], found["expires_at"]) if found else None

    async def take_reset(self, token_hash: str, now: datetime) -> bool:
        taken = await self._database.resets.delete_one({"_id": token_hash, "expires_at": {"$gt": now}})
        return bool(taken.deleted_count)

    async def delete_resets(self, user_id: str) -> None:
        await self._database.resets.delete_many({"user_id": user_id})

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

    async def revoke_sessions(self, user_id: str, but: str, seconds: int) -> None:
        """End an account's sessions, except one, and tell every service while access tokens could live."""
        others = {"user_id": user_id, "_id": {"$ne": but}}
        # Before they are marked, or after a crash between the two nobody would tell.
        try:
            await self._tell_revoked(others, seconds)
        finally:
            await self._database.sessions.update_many({**others, "revoked": False}, {"$set": {"revoked": True}})
        # Those that were renewed meanwhile. From here on none can be.
        await self._tell_revoked(others, seconds)

    async def _tell_revoked(self, sessions: dict[str, Any], seconds: int) -> None:
        # One that was not renewed lately has no access token alive.
        recent = datetime.now(UTC) - timedelta(seconds=seconds)
        found = self._database.sessions.find({**sessions, "rotated_at": {"$gt": recent}}, {"_id": 1})
        ids = [document["_id"] async for document in found]
        if ids:
            async with self._cache.pipeline(transaction=False) as pipeline:
                for session_id in ids:
                    pipeline.set(revocation_key(session_id), "1", ex=seconds)
                await pipeline.execute()

    async def is_revoked(self, session_id: str) -> bool:
        return bool(await self._cache.exists(revocation_key(session_id)))

    async def _ensure_indexes(self) -> None:
        # Not at start: the service starts without its database too, and says so in /readyz.
        if not self._indexed:
            await ensure_indexes(self._database)
            self._indexed = True


async def ensure_indexes(database: Database) -> None:
    """What is there already stays as it is."""
    await database.users.create_index("email", unique=True)
    await database.users.create_index([("verified", 1), ("created_at", 1)])
    for links in (database.verifications, database.resets):
        await links.create_index("expires_at", expireAfterSeconds=0)
        await links.create_index("user_id")
    await database.verifications.create_index("account_id")
    await database.sessions.create_index("user_id")
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


def _verification(document: dict[str, Any] | None) -> Verification | None:
    if document is None:
        return None
    user_id = document["user_id"]
    return Verification(
        # The release before knows neither these nor a registration beside the account.
        document.get("account_id", user_id),
        document.get("name", ""),
        document.get("password_hash", ""),
        user_id,
        document["_id"],
        document["expires_at"],
    )
