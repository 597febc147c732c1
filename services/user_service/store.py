"""Every query of user_service: profiles in Mongo, their copies and the revocations in Redis."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from shared.clients.cache import Cache
from shared.clients.database import Database
from shared.errors import Overloaded
from shared.tokens import Claims, revocation_key
from user_service.schemas import Profile


@dataclass(frozen=True)
class Known:
    """What one question to Redis tells about a caller."""

    revoked: bool
    profile: Profile | None


class UserStore(Protocol):
    """What the rules need to be remembered."""

    async def known(self, claims: Claims) -> Known: ...
    async def find_or_create(self, claims: Claims, now: datetime) -> Profile: ...
    async def change(self, claims: Claims, fields: dict[str, str], now: datetime) -> Profile: ...


class MongoRedisUserStore:
    """The store of production."""

    def __init__(self, database: Database, cache: Cache, cache_seconds: int) -> None:
        self._database = database
        self._cache = cache
        self._cache_seconds = cache_seconds

    async def ping_database(self) -> None:
        await self._database.command("ping")

    async def ping_cache(self) -> None:
        await self._cache.ping()

    async def known(self, claims: Claims) -> Known:
        """One round trip: has the session ended, and is the profile at hand."""
        revoked, cached = await self._cache.mget(revocation_key(claims.sid), _profile_key(claims.sub))
        return Known(revoked is not None, Profile.model_validate_json(cached) if cached else None)

    async def find_or_create(self, claims: Claims, now: datetime) -> Profile:
        """The profile of a person, made on first sight."""
        found = await self._database.profiles.find_one({"_id": claims.sub})
        profile = _profile(found) if found else await self._upsert(claims, {}, now)
        # NX: a change that came in between has already put the newer one there.
        await self._cache.set(_profile_key(profile.id), profile.model_dump_json(), ex=self._cache_seconds, nx=True)
        return profile

    async def change(self, claims: Claims, fields: dict[str, str], now: datetime) -> Profile:
        """Set these fields and leave the others as they are."""
        profile = await self._upsert(claims, {**fields, "updated_at": now}, now)
        await self._cache.set(_profile_key(profile.id), profile.model_dump_json(), ex=self._cache_seconds)
        return profile

    async def _upsert(self, claims: Claims, fields: dict[str, Any], now: datetime) -> Profile:
        first = {"email": claims.email, "name": claims.name, "bio": "", "created_at": now, "updated_at": now}
        change: dict[str, Any] = {"$setOnInsert": {name: value for name, value in first.items() if name not in fields}}
        if fields:
            change["$set"] = fields
        # Several first sights at once: one makes it; another is refused or finds nothing, and finds it at the next try.
        for _ in range(3):
            with suppress(DuplicateKeyError):
                document = await self._database.profiles.find_one_and_update(
                    {"_id": claims.sub}, change, upsert=True, return_document=ReturnDocument.AFTER
                )
                if document is not None:
                    return _profile(document)
        raise Overloaded("The profile is being made by another request. Please try again.")


def _profile_key(user_id: str) -> str:
    return f"profile:{user_id}"


def _profile(document: dict[str, Any]) -> Profile:
    return Profile(
        id=document["_id"],
        email=document["email"],
        name=document["name"],
        bio=document["bio"],
        updated_at=document["updated_at"],
    )
