"""The rules of profiles; no HTTP, no driver."""

from datetime import UTC, datetime

from shared.tokens import Claims, SessionRevoked, Verifier
from user_service.schemas import Profile, ProfileChange
from user_service.store import Known, UserStore


class Profiles:
    """What a person can do with the own profile."""

    def __init__(self, store: UserStore, keys: Verifier) -> None:
        self._store = store
        self._keys = keys

    async def mine(self, access_token: str) -> Profile:
        """The caller's profile, made on first sight of a valid token."""
        claims, known = await self._identify(access_token)
        return known.profile or await self._store.find_or_create(claims, _now())

    async def change(self, access_token: str, change: ProfileChange) -> Profile:
        """Change what was sent, keep the rest."""
        claims, known = await self._identify(access_token)
        fields = change.model_dump(exclude_unset=True)
        if not fields:
            return known.profile or await self._store.find_or_create(claims, _now())
        return await self._store.change(claims, fields, _now())

    async def _identify(self, access_token: str) -> tuple[Claims, Known]:
        claims = self._keys.verify(access_token)
        known = await self._store.known(claims)
        if known.revoked:
            raise SessionRevoked("This session has ended. Please sign in again.")
        return claims, known


def _now() -> datetime:
    # Milliseconds, since that is what the database keeps.
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
