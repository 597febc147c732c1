"""How often something may be tried: sign-ins, sign-ups, mails. No HTTP, no driver.

Visitors are counted by network: an IPv4 address, or the /64 that an IPv6 visitor has to himself.
"""

import hashlib
import logging
import time
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Literal, Protocol

from prometheus_client import Counter

from auth_service.settings import AuthSettings
from shared.errors import TooManyRequests

logger = logging.getLogger("limits")

SIGN_IN_FAILURES = Counter("auth_sign_in_failures", "Sign-ins with a wrong password or an unknown address")
MAILS_REFUSED = Counter("auth_mails_refused", "Mails that a budget did not allow", ["budget"])

HOUR, DAY = 3600, 86400

# What a mail is about. Each has its own budget of an address, so that who spends one leaves the other.
MailGroup = Literal["sign_up", "reset"]


@dataclass(frozen=True)
class Limit:
    """At most so many in so many seconds."""

    name: str
    key: str
    most: int
    seconds: int


class Counters(Protocol):
    """Numbers that are forgotten after a while, shared by every worker."""

    async def read(self, *keys: str) -> list[tuple[int, int]]: ...
    async def add(self, seconds: dict[str, int]) -> dict[str, int]: ...
    async def take(self, limits: list[Limit]) -> tuple[Limit, int] | None: ...
    async def give_back(self, *keys: str) -> None: ...
    async def claim(self, key: str, seconds: int) -> int: ...
    async def remember(self, key: str, seconds: int, *forgotten: str) -> None: ...


@dataclass(frozen=True)
class Allowance:
    """A mail that was taken from every budget, or the name of the one that is used up."""

    keys: tuple[str, ...]
    refused: str = ""


@dataclass(frozen=True)
class Attempt:
    """A sign-in that may be tried."""

    email: str
    network: str
    pair: str
    by_network: str
    account: str
    known: bool


class Limits:
    """The rules of counting."""

    def __init__(self, settings: AuthSettings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._told_at: dict[str, float] = {}

    async def attempt(self, email: str, network: str) -> Attempt:
        """Let a sign-in be tried, or refuse it. Nothing is counted yet: only who fails is counted."""
        settings = self._settings
        attempt = Attempt(
            email,
            network,
            f"signin:{digest(f'{email}|{network}')}",
            f"signin-network:{network}",
            f"signin-account:{digest(email)}",
            known=False,
        )
        pair, by_network, account, known = await self._counters.read(
            attempt.pair, attempt.by_network, attempt.account, known_key(email, network)
        )
        if pair[0] >= settings.sign_in_failures:
            raise _too_many_sign_ins(pair[1])
        if known[0]:
            # Others, here or elsewhere, do not lock out who has signed in from here before.
            return Attempt(**{**vars(attempt), "known": True})
        if by_network[0] >= settings.sign_in_failures_per_network:
            raise _too_many_sign_ins(by_network[1])
        if account[0] >= settings.sign_in_failures_per_account:
            # From here on one attempt at a time, whatever comes of it.
            left = await self._counters.claim(f"signin-wait:{digest(email)}", self._wait(account[0]))
            if left:
                raise _too_many_sign_ins(left)
        return attempt

    async def failed(self, attempt: Attempt) -> bool:
        """Count a failure. Tells whether the owner of the address is to hear of it, which is once a day."""
        settings = self._settings
        SIGN_IN_FAILURES.inc()
        logger.info("sign-in failed", extra={"account": digest(attempt.email)[:12], "network": attempt.network})
        counts = await self._counters.add(
            {
                attempt.pair: settings.sign_in_window_seconds,
                attempt.by_network: settings.sign_in_window_seconds,
                attempt.account: DAY,
            }
        )
        if counts[attempt.account] < settings.sign_in_failures_per_account:
            return False
        return not await self._counters.claim(f"told:{digest(attempt.email)}", DAY)

    async def succeeded(self, attempt: Attempt) -> None:
        """Forget the failures, and remember where the account was used."""
        await self.proved_owner(attempt.email, attempt.network)

    async def proved_owner(self, email: str, network: str) -> None:
        """The owner was here: the password or the mailbox showed it."""
        await self._counters.remember(
            known_key(email, network),
            self._settings.known_network_days * DAY,
            f"signin:{digest(f'{email}|{network}')}",
            f"signin-account:{digest(email)}",
            f"signin-wait:{digest(email)}",
        )

    async def sign_up(self, network: str) -> None:
        """Count a sign-up, or refuse it. The address has no part in this."""
        limit = Limit("network", f"signup:{network}", self._settings.sign_ups_per_network, HOUR)
        if refused := await self._counters.take([limit]):
            raise TooManyRequests("Too many sign-ups from your network. Please try again later.", refused[1])

    async def may_mail(self, group: MailGroup, email: str, network: str) -> Allowance:
        """Take a mail from every budget, or none."""
        settings = self._settings
        mailbox = digest(mailbox_of(email))
        limits = [
            Limit("address", f"mail:{group}:{mailbox}", 1, settings.mail_pause_seconds),
            Limit("address", f"mail-day:{group}:{mailbox}", settings.mails_per_address, DAY),
            *self._shared(network),
        ]
        refused = await self._counters.take(limits)
        if refused and refused[0].name != "network" and group == "reset":
            # Strangers who use up the budget of an address, or the site's, do not keep an owner from a new password.
            [known] = await self._counters.read(known_key(email, network))
            if known[0]:
                limits = [
                    Limit("address", f"mail-reserve:{mailbox}", settings.mails_per_address, DAY),
                    self._shared(network)[0],
                ]
                refused = await self._counters.take(limits)
        return self._taken(limits, refused)

    async def may_keep(self, email: str) -> bool:
        """Whether a sign-up whose mail has to wait is worth keeping, so that the link can be asked for later."""
        mailbox = digest(mailbox_of(email))
        limit = Limit("address", f"unsent:{mailbox}", self._settings.mails_per_address, DAY)
        return await self._counters.take([limit]) is None

    async def may_tell(self, network: str) -> Allowance:
        """Take a mail that tells an owner what a network did."""
        limits = self._shared(network)
        return self._taken(limits, await self._counters.take(limits))

    async def change_password(self, email: str) -> None:
        """Count a change, or refuse it: each sends a mail."""
        limit = Limit("changes", f"password-change:{digest(email)}", self._settings.password_changes_a_day, DAY)
        if refused := await self._counters.take([limit]):
            raise TooManyRequests("The password was changed too often today.", refused[1])

    async def give_back(self, taken: Allowance) -> None:
        """A mail that did not leave does not count."""
        await self._counters.give_back(*taken.keys)

    def _wait(self, failures: int) -> int:
        """1, 2, 4 ... 60 seconds, and beyond the hundred of NIST SP 800-63B a quarter of an hour."""
        settings = self._settings
        if failures >= settings.sign_in_failures_in_a_row:
            return settings.sign_in_window_seconds
        return int(min(2 ** min(failures - settings.sign_in_failures_per_account, 10), settings.sign_in_wait_seconds))

    def _shared(self, network: str) -> list[Limit]:
        return [
            Limit("network", f"mail-network:{network}", self._settings.mails_per_network, HOUR),
            Limit("site", "mail-site", self._settings.mails_per_hour, HOUR),
        ]

    def _taken(self, limits: list[Limit], refused: tuple[Limit, int] | None) -> Allowance:
        if refused is None:
            return Allowance(tuple(limit.key for limit in limits))
        MAILS_REFUSED.labels(refused[0].name).inc()
        self._log_refused(refused[0].name)
        return Allowance((), refused[0].name)

    def _log_refused(self, budget: str) -> None:
        # A line a minute: whoever sends mail bombs does not fill the log as well.
        now = time.monotonic()
        if now - self._told_at.get(budget, -60) >= 60:
            self._told_at[budget] = now
            logger.warning("mails are refused: the budget is used up", extra={"budget": budget})


def _too_many_sign_ins(seconds: int) -> TooManyRequests:
    return TooManyRequests("Too many failed sign-ins. Please wait before the next.", max(seconds, 1))


def known_key(email: str, network: str) -> str:
    """The key whose presence says that an account was signed in to from a network."""
    return f"known:{digest(f'{email}|{network}')}"


def mailbox_of(email: str) -> str:
    """The mailbox that an address leads to: what stands behind a + is a label that its owner chose."""
    local, _, domain = email.rpartition("@")
    return f"{local.partition('+')[0] or local}@{domain}"


def network_of(address: str) -> str:
    """The network that one visitor has: an IPv4 address, or a /64."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is None:
            return f"{IPv6Address(int(found) >> 64 << 64)}/64"
        found = found.ipv4_mapped
    return str(found)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
