"""The rules of accounts; no HTTP, no driver. Those of sessions are in sessions.py, those of counting in limits.py."""

import asyncio
import logging
import uuid
from datetime import timedelta

from auth_service.later import Later, Work
from auth_service.limits import DAY, Attempt, Limits, digest
from auth_service.mails import Mails
from auth_service.password_policy import password_problem
from auth_service.schemas import Registration
from auth_service.sessions import Sessions, SignedIn, now_in_milliseconds
from auth_service.settings import AuthSettings
from auth_service.store import AuthStore, User, Verification
from shared.errors import BEARER, ServiceError
from shared.security import Passwords
from shared.tokens import SessionRevoked

logger = logging.getLogger("accounts")

# Sign-ups whose answer has left and whose work is to be done: 16 x 25 ms. Beyond it sign-up alone answers 503.
SIGN_UPS_AT_ONCE = 16
MAILS_AT_ONCE = 32

WHICH_ONE = (
    "Type the password that you chose when you signed up. If it was not you who signed up, or you do not know it, "
    "sign up yourself or choose a new password."
)


class TokenInvalid(ServiceError):
    status = 400
    code = "token_invalid"


class PasswordRequired(ServiceError):
    status = 400
    code = "password_required"


class WrongPassword(ServiceError):
    """Of somebody who is known by a link or a session, so this is no failed sign-in."""

    status = 400
    code = "credentials_invalid"


class PasswordRefused(ServiceError):
    status = 422
    code = "invalid"

    def __init__(self, field: str, message: str) -> None:
        super().__init__("Some fields are missing or not acceptable.")
        self.errors = [{"field": field, "message": message}]


class CredentialsInvalid(ServiceError):
    status = 401
    code = "credentials_invalid"
    headers = BEARER


class Auth:
    """Everything a person can do with an account."""

    def __init__(
        self,
        settings: AuthSettings,
        store: AuthStore,
        passwords: Passwords,
        sessions: Sessions,
        limits: Limits,
        mails: Mails,
    ) -> None:
        self._settings = settings
        self._store = store
        self._passwords = passwords
        self.sessions = sessions
        self._limits = limits
        self._mails = mails
        self._sign_ups = Later(SIGN_UPS_AT_ONCE)
        self._requests = Later(MAILS_AT_ONCE)

    # --- Sign-up ---

    async def register(self, new: Registration, network: str) -> Work:
        """Take a registration. Nothing that is done or answered before the returned work depends on the address."""
        await self._limits.sign_up(network)
        await self._check_policy("password", new.password, new.email)
        await self._store.ping_database()
        return self._sign_ups.plan(lambda: self._register(new, network))

    async def _register(self, new: Registration, network: str) -> None:
        # The same work for every address: whoever measures other answers meanwhile learns nothing either.
        taken = await self._limits.may_mail("sign_up", new.email, network)
        # A stranger who was a moment faster does not make this sign-up one that never was.
        if taken.refused and not (taken.refused == "address" and await self._limits.may_keep(new.email)):
            return
        password_hash = await self._passwords.hash_later(new.password)
        first = User(uuid.uuid4().hex, new.email, new.name, password_hash, verified=False)
        account = await self._store.place_user(first, now_in_milliseconds())
        if account is None:
            if not taken.refused:
                await self._mails.send_notice("already_registered", new.email, taken)
            return
        registration = Verification(
            account_id=account.id,
            name=new.name,
            password_hash=password_hash,
            # To the release before this one a link verifies the account as it stands, so it gets no other's.
            user_id=account.id if account.password_hash == password_hash else "",
        )
        if taken.refused:
            await self._mails.keep_verification(registration)
        else:
            await self._mails.send_verification(new.email, registration, taken)

    async def resend_verification(self, email: str, network: str) -> Work:
        """Send the newest registration's link again. The caller cannot tell whether the address has an account."""
        await self._store.ping_database()
        return self._requests.plan(lambda: self._resend_verification(email, network))

    async def _resend_verification(self, email: str, network: str) -> None:
        # Taken whether there is a mail to send or not: what is left of a budget shows to whoever asked.
        taken = await self._limits.may_mail("sign_up", email, network)
        user = await self._store.user_by_email(email)
        if taken.refused or user is None or user.verified:
            return
        # Lives as long as the link, at least.
        if await self._store.place_user(user, now_in_milliseconds()) is None:
            return
        newest = await self._store.newest_verification(user.id)
        registration = newest or Verification(user.id, user.name, user.password_hash, user.id)
        await self._mails.send_verification(email, registration, taken)

    async def verify(self, token: str, password: str | None) -> User:
        """Confirm an address, for whoever knows the password of the very registration that the link was sent for.

        So neither the mailbox nor the password is enough: not to a stranger who signed up with this address and hopes
        for a click, nor to one who only reads mails. The same link works again, as mail programs open links twice.
        """
        hashed = digest(token)
        invalid = TokenInvalid("This link is not valid or has run out. Ask for a new one.")
        now = now_in_milliseconds()
        if password is None:
            if await self._store.verification(hashed, now) is None:
                raise invalid
            raise PasswordRequired(WHICH_ONE)
        registration = await self._store.try_verification(hashed, now, self._settings.verification_guesses)
        user = await self._store.user_by_id(registration.account_id) if registration else None
        if registration is None or user is None:
            raise invalid
        # The release before kept the password with the account alone.
        expected = registration.password_hash or user.password_hash
        if not await self._passwords.verify(password, expected):
            raise WrongPassword(WHICH_ONE)
        if not user.verified:
            name = registration.name if registration.password_hash else user.name
            user = await self._store.complete_registration(user.id, expected, name) or user
        # Verified meanwhile, or long ago, with another password: that one stays.
        fresh = await self._store.user_by_id(user.id)
        if fresh is None or not fresh.verified or fresh.password_hash != expected:
            raise invalid
        await self._store.close_verifications(user.id, but=hashed)
        return fresh

    # --- Sign-in ---

    async def sign_in(self, email: str, password: str, network: str) -> SignedIn:
        """Start a session. Wrong email, unverified email and wrong password look and last the same."""
        attempt = await self._limits.attempt(email, network)
        user = await self._store.user_by_email(email)
        if user is not None and not user.verified:
            # Not even with its password: whoever made that registration would learn that the address had no account.
            user = None
        checked = user.password_hash if user else None
        if not await self._passwords.verify(password, checked) or user is None:
            raise await self._failed(
                attempt,
                CredentialsInvalid(
                    "The email address or the password is not right. If you have just signed up, open the link in our "
                    "mail first."
                ),
            )
        await self._limits.succeeded(attempt)
        if self._passwords.is_outdated(user.password_hash):
            checked = await self._passwords.hash(password)
            await self._store.change_password(user.id, user.password_hash, checked)
        signed_in = await self.sessions.start(user)
        # With a password that was changed while it was checked, no session begins.
        now = await self._store.user_by_id(user.id)
        if now is None or now.password_hash != checked:
            await self.sessions.sign_out(signed_in.refresh_token)
            raise CredentialsInvalid("The password was changed a moment ago. Sign in with the new one.")
        return signed_in

    async def _failed(self, attempt: Attempt, error: ServiceError) -> ServiceError:
        if await self._limits.failed(attempt):
            error.after = self._requests.insist(lambda: self._tell_owner(attempt.email, attempt.network))
        return error

    async def _tell_owner(self, email: str, network: str) -> None:
        # Nor is this a way to have the site send mails to everybody.
        taken = await self._limits.may_tell(network)
        user = await self._store.user_by_email(email)
        if user is not None and user.verified and not taken.refused:
            await self._mails.send_notice("guessing", email, taken)

    # --- Passwords ---

    async def forgotten(self, email: str, network: str) -> Work:
        """Send a link to choose a new password, whatever the address: the caller cannot tell."""
        await self._store.ping_database()
        return self._requests.plan(lambda: self._forgotten(email, network))

    async def _forgotten(self, email: str, network: str) -> None:
        taken = await self._limits.may_mail("reset", email, network)
        user = await self._store.user_by_email(email)
        if user is not None and not taken.refused:
            await self._mails.send_reset(email, user.id, taken)

    async def reset(self, token: str, password: str, network: str) -> tuple[User, Work]:
        """Give the account a password that the owner of the mailbox chose. It is verified by that, too."""
        hashed, now = digest(token), now_in_milliseconds()
        found = await self._store.reset(hashed, now)
        user = await self._store.user_by_id(found.user_id) if found else None
        invalid = TokenInvalid("This link is not valid, was used, or has run out. Ask for a new one.")
        if user is None:
            raise invalid
        await self._check_policy("password", password, user.email)
        password_hash = await self._passwords.hash(password)
        if not await self._store.take_reset(hashed, now):
            raise invalid
        # The name of an account that nobody verified is a stranger's word.
        changed = await self._store.complete_registration(user.id, password_hash, "")
        changed = changed or await self._store.reset_password(user.id, password_hash)
        if changed is None:
            raise invalid
        await self._store.delete_resets(user.id)
        await self._store.close_verifications(user.id)
        await self.sessions.end_all(user.id)
        await self._limits.proved_owner(user.email, network)
        return changed, self._requests.insist(lambda: self._mails.send_notice("password_changed", user.email))

    async def change_password(self, access_token: str, current: str, new: str, network: str) -> Work:
        """Change the password of who is signed in; the other sessions end."""
        claims = await self.sessions.identify(access_token)
        attempt = await self._limits.attempt(claims.email, network)
        user = await self._store.user_by_id(claims.sub)
        if user is None:
            raise SessionRevoked("This session has ended. Please sign in again.")
        if not await self._passwords.verify(current, user.password_hash):
            raise await self._failed(attempt, WrongPassword("The current password is not right."))
        await self._check_policy("new", new, user.email)
        await self._limits.change_password(user.email)
        if not await self._store.change_password(user.id, user.password_hash, await self._passwords.hash(new)):
            raise WrongPassword("The password was changed a moment ago.")
        await self._limits.succeeded(attempt)
        await self._store.delete_resets(user.id)
        await self.sessions.end_all(user.id, but=claims.sid)
        return self._requests.insist(lambda: self._mails.send_notice("password_changed", user.email))

    async def _check_policy(self, field: str, password: str, email: str) -> None:
        # Milliseconds of pure Python: in a thread, so that the event loop goes on.
        problem = await asyncio.to_thread(password_problem, password, email, self._settings.site)
        if problem:
            raise PasswordRefused(field, problem)

    # --- Housekeeping ---

    async def purge_unverified(self) -> int:
        """Forget addresses that nobody verified. One that was verified, by whatever release, stays."""
        before = now_in_milliseconds() - timedelta(seconds=self._settings.unverified_days * DAY)
        return await self._store.purge_unverified(before)
