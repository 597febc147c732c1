"""The rules of sessions: families of refresh tokens. No HTTP, no driver."""

import base64
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from auth_service.limits import digest
from auth_service.settings import AuthSettings
from auth_service.store import AuthStore, Session, User
from shared.tokens import Claims, SessionRevoked, Signer

# A revocation outlives the last access token by this much, since clocks differ.
CLOCK_LEEWAY_SECONDS = 60


@dataclass(frozen=True)
class SignedIn:
    access_token: str
    refresh_token: str


class Sessions:
    """Begins, renews and ends sessions.

    A refresh token is `<session>.<random>.<mac>`. The session's id is in access tokens too, so it proves nothing; the
    mac proves that a token is one of ours, however old. The release before made tokens without one: those prove
    themselves only while the database knows them.
    """

    def __init__(self, settings: AuthSettings, store: AuthStore, signer: Signer) -> None:
        self._settings = settings
        self._store = store
        self._signer = signer

    async def start(self, user: User) -> SignedIn:
        session_id = secrets.token_urlsafe(16)
        token = self._marked(f"{session_id}.{secrets.token_urlsafe(32)}")
        now = now_in_milliseconds()
        session = Session(session_id, user.id, digest(token), "", now, self._end_of(now), revoked=False)
        await self._store.insert_session(session)
        return SignedIn(self._access_token(user, session_id), token)

    async def refresh(self, token: str, older_name: str = "") -> SignedIn:
        """Swap a refresh token for the next. An old one that comes back ends the whole session.

        `older_name` is what came in the cookie that the release before writes. After a rollback it may be newer.
        """
        session_id = _session_id(token)
        if older_name != token and _session_id(older_name) == session_id:
            session = await self._store.session(session_id)
            token = older_name if session and session.token_hash == digest(older_name) else token
        old_hash = digest(token)
        successor = self._successor(token, self._settings.successor_keys[0])
        now = now_in_milliseconds()
        session = await self._store.rotate_session(session_id, old_hash, digest(successor), now, self._end_of(now))
        if session is None:
            session = await self._store.session(session_id)
            successor = self._recent_successor(session, token, old_hash, now) or ""
            if session is None or not successor:
                if session is not None and self._is_ours(token, session):
                    await self.end(session)
                raise _ended()
        user = await self._store.user_by_id(session.user_id)
        if user is None:
            await self.end(session)
            raise _ended()
        return SignedIn(self._access_token(user, session.id), successor)

    async def sign_out(self, token: str, older_name: str = "") -> None:
        """End the session at every service. Whoever holds none is signed out already."""
        for each in {token, older_name} - {""}:
            session = await self._store.session(_session_id(each))
            if session is not None and self._is_ours(each, session):
                await self.end(session)

    async def identify(self, access_token: str) -> Claims:
        """Tell who holds an access token, unless the session has ended."""
        claims = self._signer.verify(access_token)
        if await self._store.is_revoked(claims.sid):
            raise _ended()
        return claims

    async def end(self, session: Session) -> None:
        await self._store.revoke_session(session.id, self._revocation_seconds)

    async def end_all(self, user_id: str, but: str = "") -> None:
        """End every session of an account, at every service, except perhaps the one that asks for it."""
        await self._store.revoke_sessions(user_id, but, self._revocation_seconds)

    @property
    def _revocation_seconds(self) -> int:
        return self._settings.access_token_seconds + CLOCK_LEEWAY_SECONDS

    def _access_token(self, user: User, session_id: str) -> str:
        claims = Claims(user.id, user.email, session_id, user.name)
        return self._signer.sign(claims, self._settings.access_token_seconds)

    def _end_of(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._settings.refresh_token_seconds)

    def _is_ours(self, token: str, session: Session) -> bool:
        """Whether this token, all of it, once was the session's."""
        if digest(token) in (session.token_hash, session.previous_hash):
            return True
        body, _, mac = token.rpartition(".")
        return "." in body and any(_equal(_mac(b"session:", body, key), mac) for key in self._settings.successor_keys)

    def _marked(self, body: str, key: str = "") -> str:
        return f"{body}.{_mac(b'session:', body, key or self._settings.successor_keys[0])}"

    def _successor(self, token: str, key: str) -> str:
        """The next token, computed: two tabs that refresh at once get the same one, unknown to the store."""
        return self._marked(_bare_successor(token, key), key)

    def _recent_successor(self, session: Session | None, token: str, old_hash: str, now: datetime) -> str | None:
        """The token that a rotation a moment ago put in this one's place, if there was one."""
        grace = timedelta(seconds=self._settings.refresh_grace_seconds)
        if session is None or session.revoked or session.expires_at <= now:
            return None
        if session.previous_hash != old_hash or now - session.rotated_at > grace:
            return None
        keys = self._settings.successor_keys
        # The second kind is what the release before computes, which may serve the other tab.
        candidates = [*(self._successor(token, key) for key in keys), *(_bare_successor(token, key) for key in keys)]
        return next((each for each in candidates if digest(each) == session.token_hash), None)


def now_in_milliseconds() -> datetime:
    """Now, as the database keeps it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _ended() -> SessionRevoked:
    return SessionRevoked("This session has ended. Please sign in again.")


def _bare_successor(token: str, key: str) -> str:
    return f"{_session_id(token)}.{_mac(b'refresh:', token, key)}"


def _mac(purpose: bytes, text: str, key: str) -> str:
    mac = hmac.digest(key.encode(), purpose + text.encode(), "sha256")
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _session_id(token: str) -> str:
    return token.partition(".")[0]
