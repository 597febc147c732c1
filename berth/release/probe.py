"""The smoke test: use the site as somebody with an account does, and report what is wrong.

Part of `berth release`, and a program of its own for the check from outside:
    python3 probe.py <JSON on standard input>: domain, address, headers, email, password, release, seconds, verify
Prints {"milliseconds": {...}} and ends with 0, or one sentence and 1. Needs only the standard library.
What others do to the site does not count against a release: where it is refused under load it tries again, and it takes
three failures.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import statistics
import sys
import time
from dataclasses import dataclass, field

ROUNDS = 8
TRIES = 3


class ProbeFailed(Exception):  # noqa: N818  # "raise ProbeFailed" says it
    """The site gives a wrong answer, or none. `service` is the most likely culprit."""

    def __init__(self, sentence: str, service: str = "") -> None:
        super().__init__(sentence)
        prefixes = {"/api/auth": "auth_service", "/api/users": "user_service"}
        self.service = service or next((name for prefix, name in prefixes.items() if prefix in sentence), "frontend")


class Busy(ProbeFailed):
    """The site refused requests under load until the time limit."""


@dataclass
class Visit:
    """One visitor on one connection."""

    domain: str
    # Empty: what the name resolves to.
    address: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    email: str = ""
    password: str = ""
    # The expected X-Berth-Release; empty: any.
    release: str = ""
    seconds: float = 30
    verify: bool = False

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + self.seconds
        self._connection: http.client.HTTPSConnection | None = None

    def everything(self) -> dict[str, float]:
        """Sign in, read the profile, fetch the front page and every asset it names; return how fast that was."""
        token = self.sign_in()
        if token is None:
            raise ProbeFailed("The probe account cannot sign in.", "auth_service")
        bearer = _bearer(token)
        for path, where in {"/api/auth/me": "auth_service", "/api/users/me": "user_service"}.items():
            status, body = self.ask("GET", path, headers=bearer)
            if status != 200 or _json(body).get("email") != self.email:
                raise ProbeFailed(
                    f"{where} does not recognise the probe account: {path} returned {status}, {_short(body)}"
                )
        self.front_page()
        speed = self.speed(token)
        self.ask("POST", "/api/auth/logout", headers=bearer)
        return speed

    def sign_in(self) -> str | None:
        """Return an access token, or None where the account is not known or has another password."""
        status, body = self.ask("POST", "/api/auth/login", {"email": self.email, "password": self.password})
        if status in (401, 403):
            return None
        token = _json(body).get("access_token")
        if status != 200 or not isinstance(token, str):
            raise ProbeFailed(f"Signing in returned {status}: {_short(body)}", "auth_service")
        return token

    def front_page(self) -> None:
        status, body = self.ask("GET", "/")
        page = body.decode(errors="replace")
        assets = sorted(set(re.findall(r'(?:src|href)="(/[^"#?]+\.[a-z0-9]+)"', page)))
        if status != 200 or not any(asset.endswith(".js") for asset in assets):
            raise ProbeFailed(f"The front page references no script: status {status}, {_short(body)}")
        for asset in assets:
            status, body = self.ask("GET", asset)
            if status != 200 or not body:
                raise ProbeFailed(f"The front page references {asset}, which returned {status} and {len(body)} bytes.")

    def speed(self, token: str) -> dict[str, float]:
        """Return the median time of a few short requests, in milliseconds."""
        found = {}
        for path in ("/api/auth/me", "/api/users/me", "/"):
            times = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                status, body = self.ask("GET", path, headers=_bearer(token) if token else {})
                times.append((time.perf_counter() - began) * 1000)
                if status >= 500:
                    raise ProbeFailed(f"{path} returned {status}: {_short(body)}")
            found[path] = round(statistics.median(times), 1)
        return found

    def ask(
        self, method: str, path: str, document: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send one request; again only where it is refused under load."""
        refusal = ""
        while True:
            try:
                status, text, wait = self._ask(method, path, document, headers)
            except ProbeFailed as error:
                # Being refused until the time limit does not count against the release.
                if refusal and self.seconds_left() <= 0:
                    raise Busy(refusal) from error
                raise
            if wait is None:
                return status, text
            refusal = f"{path} was refused under load until the time limit: {status}, {_short(text)}"
            if self.seconds_left() <= wait:
                raise Busy(refusal)
            time.sleep(wait)

    def _ask(
        self, method: str, path: str, document: object, headers: dict[str, str] | None
    ) -> tuple[int, bytes, float | None]:
        """Send one request, once; return the answer, and after how many seconds to try again, if at all."""
        left = self.seconds_left()
        if left <= 0:
            raise ProbeFailed(f"{path} was not requested: the whole test took longer than {self.seconds:.0f} s.")
        body = None if document is None else json.dumps(document).encode()
        sent = {**self.headers, **(headers or {}), **({"Content-Type": "application/json"} if body else {})}
        try:
            connection = self._connection or self._connect(left)
            self._connection = connection
            connection.sock.settimeout(left)
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ProbeFailed(f"{path} did not answer: {type(error).__name__}: {error}") from error
        if answer.will_close:
            self.close()
        seen = answer.getheader("X-Berth-Release", "none")
        if self.release and seen != self.release:
            raise ProbeFailed(f"{path} was answered by release {seen}, not by {self.release}: status {answer.status}.")
        refused = answer.status == 429 or (answer.status == 503 and _json(text).get("code") == "overloaded")
        retry_after = answer.getheader("Retry-After", "")
        return answer.status, text, (min(int(retry_after), 5) if retry_after.isdigit() else 1) if refused else None

    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _connect(self, seconds: float) -> http.client.HTTPSConnection:
        # The certificate was verified when the edge was set up; from inside, only the release behind it matters.
        context = ssl.create_default_context() if self.verify else ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(self.domain, timeout=seconds, context=context)
        plain = socket.create_connection((self.address or self.domain, 443), timeout=seconds)
        connection.sock = context.wrap_socket(plain, server_hostname=self.domain)
        return connection


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


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
    visit = Visit(**plan)
    first = ""
    for _ in range(TRIES):
        try:
            print(json.dumps({"milliseconds": visit.everything()}))
        except Busy as busy:
            print(json.dumps({"milliseconds": {}, "note": str(busy)}))
        except ProbeFailed as error:
            # The first one says most: later ones may only be timeouts.
            first = first or str(error)
            time.sleep(min(1, max(visit.seconds_left(), 0)))
            continue
        return 0
    print(first)
    return 1


if __name__ == "__main__":
    sys.exit(main())
