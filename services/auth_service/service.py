"""The rules of accounts and sessions; no HTTP, no driver."""

import base64
import hashlib
import hmac
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from auth_service.schemas import Registered, Registration
from auth_service.settings import AuthSettings
from auth_service.store import AuthStore, Session, User
from shared.errors import BEARER, ServiceError, TooManyRequests
from shared.queue import SEND_VERIFICATION, QueueUnavailable, TaskQueue
from shared.security import Passwords
from shared.tokens import Claims, KeyRing, SessionRevoked

# A revocation outlives the last access token by this much, since clocks differ.
CLOCK_LEEWAY_SECONDS = 60


class EmailTaken(ServiceError):
    status = 409
    code = "email_taken"


class VerificationInvalid(ServiceError):
    status = 400
    code = "token_invalid"


class CredentialsInvalid(ServiceError):
    status = 401
    code = "credentials_invalid"
    headers = BEARER


class EmailUnverified(ServiceError):
    status = 403
    code = "email_unverified"


@dataclass(frozen=True)
class SignedIn:
    access_token: str
    refresh_token: str


class Auth:
    """Everything a person can do with an account."""

    def __init__(
        self, settings: AuthSettings, store: AuthStore, passwords: Passwords, keys: KeyRing, queue: TaskQueue
    ) -> None:
        self._settings = settings
        self._store = store
        self._passwords = passwords
        self._keys = keys
        self._queue = queue

    async def register(self, new: Registration) -> Registered:
        """Create an account. Two accounts never share an email, and no broker trouble undoes one."""
        password_hash = await self._passwords.hash(new.password)
        user = User(uuid.uuid4().hex, new.email, new.name, password_hash, verified=False)
        if not await self._store.insert_user(user, _now()):
            raise EmailTaken("This email address already has an account.")
        try:
            await self._send_verification(user)
        except QueueUnavailable:
            return Registered(id=user.id, email=user.email, verified=False, mail="delayed")
        return Registered(id=user.id, email=user.email, verified=False, mail="queued")

    async def resend_verification(self, email: str) -> None:
        """Send the link again. The caller cannot tell from it whether the address has an account."""
        user = await self._store.user_by_email(email)
        if user is None or user.verified:
            return
        if not await self._store.may_mail(_digest(email), self._settings.mail_pause_seconds):
            return
        try:
            await self._send_verification(user)
        except QueueUnavailable:
            # Logged where it happened. Only this mail waits, not the next try.
            await self._store.forget_mail(_digest(email))

    async def verify(self, token: str) -> User:
        """Confirm an address. The same link works again: mail programs open links before people do."""
        user = await self._store.verify_user(_digest(token), _now())
        if user is None:
            raise VerificationInvalid("This link is not valid or has run out. Ask for a new one.")
        return user

    async def sign_in(self, email: str, password: str, address: str) -> SignedIn:
        """Start a session. Wrong email and wrong password look and last the same."""
        who = _digest(f"{email}|{address}")
        # Counted after the check: a burst can exceed the limit by what the password queue holds, no more.
        failures, seconds = await self._store.failures(who)
        if failures >= self._settings.sign_in_failures:
            raise TooManyRequests("Too many failed sign-ins. Please wait before the next.", seconds)
        user = await self._store.user_by_email(email)
        if not await self._passwords.verify(password, user.password_hash if user else None) or user is None:
            await self._store.add_failure(who, self._settings.sign_in_window_seconds)
            raise CredentialsInvalid("The email address or the password is not right.")
        if failures:
            await self._store.forget_failures(who)
        if not user.verified:
            raise EmailUnverified("This email address is not verified yet. Follow the link in the mail.")
        if self._passwords.is_outdated(user.password_hash):
            await self._store.set_password_hash(user.id, await self._passwords.hash(password))
        return await self._start_session(user)

    async def refresh(self, token: str) -> SignedIn:
        """Swap a refresh token for the next. An old one that comes back ends the whole session."""
        session_id, old_hash = _session_id(token), _digest(token)
        successor = self._successor(token, self._keys.keys[0])
        now = _now()
        session = await self._store.rotate_session(
            session_id, old_hash, _digest(successor), now, self._session_end(now)
        )
        if session is None:
            session = await self._store.session(session_id)
            successor = self._recent_successor(session, token, old_hash, now) or ""
            if session is None or not successor:
                await self._end(session)
                raise SessionRevoked("This session has ended. Please sign in again.")
        user = await self._store.user_by_id(session.user_id)
        if user is None:
            await self._end(session)
            raise SessionRevoked("This session has ended. Please sign in again.")
        return SignedIn(self._access_token(user, session.id), successor)

    async def sign_out(self, token: str) -> None:
        """End the session at every service. Whoever holds none is signed out already."""
        session = await self._store.session(_session_id(token))
        known = session and _digest(token) in (session.token_hash, session.previous_hash)
        if known:
            await self._end(session)

    async def identify(self, access_token: str) -> Claims:
        """Tell who holds an access token, unless the session has ended."""
        claims = self._keys.verify(access_token)
        if await self._store.is_revoked(claims.sid):
            raise SessionRevoked("This session has ended. Please sign in again.")
        return claims

    async def _send_verification(self, user: User) -> None:
        token = secrets.token_urlsafe(32)
        end = _now() + timedelta(seconds=self._settings.verification_seconds)
        await self._store.insert_verification(_digest(token), user.id, end)
        await self._queue.send(
            SEND_VERIFICATION,
            message_id=uuid.uuid4().hex,
            email=user.email,
            # Behind the #: browsers send it to no server, so it is in no log and no Referer.
            link=f"{self._settings.site}/verify#token={token}",
        )

    async def _start_session(self, user: User) -> SignedIn:
        session_id = secrets.token_urlsafe(16)
        token = f"{session_id}.{secrets.token_urlsafe(32)}"
        now = _now()
        await self._store.insert_session(
            Session(session_id, user.id, _digest(token), "", now, self._session_end(now), revoked=False)
        )
        return SignedIn(self._access_token(user, session_id), token)

    def _access_token(self, user: User, session_id: str) -> str:
        claims = Claims(user.id, user.email, session_id, user.name)
        return self._keys.sign(claims, self._settings.access_token_seconds)

    def _session_end(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._settings.refresh_token_seconds)

    def _successor(self, token: str, key: str) -> str:
        """The next token, computed: two tabs that refresh at once get the same one, unknown to the store."""
        mac = hmac.digest(key.encode(), b"refresh:" + token.encode(), "sha256")
        return f"{_session_id(token)}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    def _recent_successor(self, session: Session | None, token: str, old_hash: str, now: datetime) -> str | None:
        """The token that a rotation a moment ago put in this one's place, if there was one."""
        grace = timedelta(seconds=self._settings.refresh_grace_seconds)
        if session is None or session.revoked or session.expires_at <= now:
            return None
        if session.previous_hash != old_hash or now - session.rotated_at > grace:
            return None
        candidates = (self._successor(token, key) for key in self._keys.keys)
        return next((each for each in candidates if _digest(each) == session.token_hash), None)

    async def _end(self, session: Session | None) -> None:
        if session is not None:
            seconds = self._settings.access_token_seconds + CLOCK_LEEWAY_SECONDS
            await self._store.revoke_session(session.id, seconds)


def _now() -> datetime:
    # Milliseconds, since that is what the database keeps.
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _session_id(token: str) -> str:
    return token.partition(".")[0]
