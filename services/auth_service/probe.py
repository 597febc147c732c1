"""`python3 -m auth_service.probe < JSON`: use the site as somebody with an account does. The check of a release
(berth.check).

The document says how: url, address (where to connect; empty: where the url leads), headers, release (the expected
X-Berth-Release), seconds, secret. Prints {"milliseconds": {path: time}, "note": ...} and ends with 0, or one sentence
and 1. With "restored" there are the databases and this service alone, and the account must be among the data.

The account is derived from the secret, so that nobody outside can guess its address and lock it. It needs no mailbox:
it is made verified, which only who may run commands in this container can do.
"""

import asyncio
import hashlib
import hmac
import http.client
import json
import re
import socket
import ssl
import statistics
import sys
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

ROUNDS = 8


class Wrong(Exception):
    """What the site does wrong, in a sentence."""


class Busy(Exception):
    """The site refused requests under load until the time limit, which is no fault of the release."""


class Site:
    """The site, over one connection."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._url, self._address = urlsplit(plan["url"]), plan["address"]
        self._headers, self._release = plan["headers"], plan["release"]
        self._deadline = time.monotonic() + plan["seconds"]
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def ask(self, method: str, path: str, document: object = None, token: str = "") -> tuple[int, bytes]:
        """Send one request; again only where it is refused under load."""
        refusal = ""
        while (left := self._deadline - time.monotonic()) > 0:
            try:
                status, body, wait = self._ask(method, path, document, token, left)
            except Wrong as wrong:
                # Being refused until the time limit is no fault of the release.
                if refusal and time.monotonic() >= self._deadline:
                    raise Busy(refusal) from wrong
                raise
            if wait is None:
                return status, body
            refusal = f"{path} was refused under load until the time limit: {status}, {_short(body)}"
            time.sleep(max(0, min(wait, self._deadline - time.monotonic())))
        if refusal:
            raise Busy(refusal)
        raise Wrong(f"{path} was not requested: the whole test took too long.")

    def _ask(
        self, method: str, path: str, document: object, token: str, left: float
    ) -> tuple[int, bytes, float | None]:
        """Send one request, once; return the answer, and after how many seconds to try again, if at all."""
        body = None if document is None else json.dumps(document).encode()
        headers = {**self._headers, **({"Content-Type": "application/json"} if body else {})}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection = self._connection or self._connect(left)
            self._connection = connection
            if connection.sock:
                connection.sock.settimeout(left)
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Wrong(f"{path} did not answer: {type(error).__name__}: {error}") from error
        if answer.will_close:
            self.close()
        seen = answer.getheader("X-Berth-Release", "none")
        if self._release and seen != self._release:
            raise Wrong(f"{path} was answered by release {seen}, not by {self._release}: status {answer.status}.")
        refused = answer.status == 429 or (answer.status == 503 and _json(text).get("code") == "overloaded")
        after = answer.getheader("Retry-After") or ""
        return answer.status, text, (min(int(after), 5) if after.isdigit() else 1) if refused else None

    def _connect(self, seconds: float) -> http.client.HTTPConnection:
        name = self._url.hostname or ""
        tls = self._url.scheme == "https"
        host, _, port = self._address.rpartition(":") if self._address else (name, "", "")
        at = (host, int(port or self._url.port or (443 if tls else 80)))
        plain = socket.create_connection(at, timeout=seconds)
        connection = http.client.HTTPConnection(self._url.netloc, timeout=seconds)
        # The certificate is verified elsewhere; here only the release behind it matters.
        context = ssl._create_unverified_context()  # noqa: S323
        connection.sock = context.wrap_socket(plain, server_hostname=name) if tls else plain
        return connection


class Visitor:
    """Somebody with an account."""

    def __init__(self, site: Site, email: str, password: str) -> None:
        self._site, self.email, self._password = site, email, password

    def sign_in(self) -> str | None:
        """Return an access token, or None where the account is not known or has another password."""
        credentials = {"email": self.email, "password": self._password}
        status, body = self._site.ask("POST", "/api/auth/login", credentials)
        if status in (401, 403):
            return None
        token = _json(body).get("access_token")
        if status != 200 or not isinstance(token, str):
            raise Wrong(f"Signing in returned {status}: {_short(body)}")
        return token

    def read_own(self, token: str, path: str) -> None:
        status, body = self._site.ask("GET", path, token=token)
        if status != 200 or _json(body).get("email") != self.email:
            raise Wrong(f"The probe account is not recognised: {path} returned {status}, {_short(body)}")

    def front_page(self) -> None:
        """Load the front page and every asset that it names."""
        status, body = self._site.ask("GET", "/")
        page = body.decode(errors="replace")
        assets = sorted(set(re.findall(r'(?:src|href)="(/[^"#?]+\.[a-z0-9]+)"', page)))
        if status != 200 or not any(asset.endswith(".js") for asset in assets):
            raise Wrong(f"The front page references no script: / returned {status}, {_short(body)}")
        for asset in assets:
            status, body = self._site.ask("GET", asset)
            if status != 200 or not body:
                raise Wrong(f"The front page references {asset}, which returned {status} and {len(body)} bytes.")

    def speed(self, token: str) -> dict[str, float]:
        """Return the median time of a few short requests, in milliseconds."""
        found = {}
        for path in ("/api/auth/me", "/api/users/me", "/"):
            times = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                status, body = self._site.ask("GET", path, token=token)
                times.append((time.perf_counter() - began) * 1000)
                if status >= 500:
                    raise Wrong(f"{path} returned {status}: {_short(body)}")
            found[path] = round(statistics.median(times), 1)
        return found


def account_of(secret: str) -> tuple[str, str]:
    """Return the email and the password of the account that belongs to this secret."""

    def derive(what: str) -> str:
        return hmac.new(secret.encode(), what.encode(), hashlib.sha256).hexdigest()

    # Nobody can own an address under .invalid, so nobody else can verify this account.
    return f"release-probe-{derive('email')[:16]}@berth.invalid", derive("password")


def check(plan: dict[str, Any]) -> dict[str, Any]:
    """Check the site; return what is to be printed. Raises Wrong or Busy."""
    with closing(Site(plan)) as site:
        return use(site, plan)


def use(site: Site, plan: dict[str, Any]) -> dict[str, Any]:
    visitor = Visitor(site, *account_of(plan["secret"]))
    token = visitor.sign_in()
    if token is None and not plan.get("restored"):
        make(visitor.email, account_of(plan["secret"])[1])
        token = visitor.sign_in()
    if token is None:
        raise Wrong("The probe account cannot sign in.")
    visitor.read_own(token, "/api/auth/me")
    found: dict[str, float] = {}
    if not plan.get("restored"):
        visitor.read_own(token, "/api/users/me")
        visitor.front_page()
        found = visitor.speed(token)
    site.ask("POST", "/api/auth/logout", token=token)
    return {"milliseconds": found, "note": f"signed in as {visitor.email}"}


def make(email: str, password: str) -> None:
    """Make this account, or give it this password."""
    # Seconds of imports, which most checks do without.
    from auth_service.schemas import Registration
    from auth_service.settings import AuthSettings
    from auth_service.store import User, ensure_indexes, upsert_verified_user
    from shared.clients.database import open_database
    from shared.security import Passwords
    from shared.settings import load_settings

    async def upsert() -> None:
        account = Registration(email=email, password=password)
        settings = load_settings(AuthSettings)
        database = open_database(settings.mongo_uri.get_secret_value(), "auth_db", "auth_service-probe")
        passwords = Passwords()
        try:
            await ensure_indexes(database)
            password_hash = await passwords.hash(account.password)
            user = User(uuid.uuid4().hex, account.email, account.name, password_hash, verified=True)
            await upsert_verified_user(database, user, datetime.now(UTC))
        finally:
            passwords.close()
            database.client.close()

    asyncio.run(upsert())


def _json(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _short(body: bytes) -> str:
    return repr(body[:120].decode(errors="replace"))


def main() -> int:
    plan = json.load(sys.stdin)
    if "email" in plan:
        # From a program of the release before, which makes the account itself: to be removed with the next one.
        make(plan["email"], plan["password"])
        return 0
    try:
        print(json.dumps(check(plan)))
    except Busy as busy:
        print(json.dumps({"milliseconds": {}, "note": str(busy)}))
    except Wrong as wrong:
        print(wrong)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
