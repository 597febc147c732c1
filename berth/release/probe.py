"""The smoke test that needs no knowledge of the application: every public route answers, by the expected release.

Part of `berth release`, and a program of its own for the check from outside:
    python3 probe.py <JSON on standard input>: domain, address, headers, paths, release, seconds, verify
Prints {"milliseconds": {...}} and ends with 0, or one sentence and 1. Needs only the standard library.
What others do to the site does not count against a release: where it is refused under load it tries again, and it takes
three failures.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import statistics
import sys
import time
from dataclasses import dataclass, field

ROUNDS = 8
TRIES = 3


class ProbeFailed(Exception):  # noqa: N818  # "raise ProbeFailed" says it
    """The site gives a wrong answer, or none. `service` is the most likely culprit, `lines` its own words."""

    def __init__(self, sentence: str, service: str = "", lines: list[str] | None = None) -> None:
        super().__init__(sentence)
        self.service = service
        self.lines = lines or []


class Busy(ProbeFailed):
    """The site refused requests under load until the time limit."""


@dataclass
class Visit:
    """One visitor on one connection."""

    domain: str
    # Empty: what the name resolves to.
    address: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    # Path -> the service that answers it.
    paths: dict[str, str] = field(default_factory=lambda: {"/": ""})
    # The expected X-Berth-Release; empty: any.
    release: str = ""
    seconds: float = 30
    verify: bool = False

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + self.seconds
        self._connection: http.client.HTTPSConnection | None = None

    def once(self) -> None:
        """Request every path. What is not there is no fault: a path may be the beginning of others only."""
        for path in self.paths:
            status, body = self.ask(path)
            if status >= 500:
                raise ProbeFailed(f"{path} returned {status}: {_short(body)}", self.paths[path])

    def speed(self) -> dict[str, float]:
        """Request every path some times; return the median of each, in milliseconds."""
        times: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for path in self.paths:
                began = time.perf_counter()
                status, body = self.ask(path)
                times.setdefault(path, []).append((time.perf_counter() - began) * 1000)
                if status >= 500:
                    raise ProbeFailed(f"{path} returned {status}: {_short(body)}", self.paths[path])
        return {path: round(statistics.median(found), 1) for path, found in times.items()}

    def ask(self, path: str) -> tuple[int, bytes]:
        """Send one request; again only where it is refused under load."""
        refusal = ""
        while True:
            try:
                status, text, wait = self._ask(path)
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

    def _ask(self, path: str) -> tuple[int, bytes, float | None]:
        """Send one request, once; return the answer, and after how many seconds to try again, if at all."""
        left, service = self.seconds_left(), self.paths.get(path, "")
        if left <= 0:
            raise ProbeFailed(
                f"{path} was not requested: the whole test took longer than {self.seconds:.0f} s.", service
            )
        try:
            connection = self._connection or self._connect(left)
            self._connection = connection
            connection.sock.settimeout(left)
            connection.request("GET", path, None, self.headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ProbeFailed(f"{path} did not answer: {type(error).__name__}: {error}", service) from error
        if answer.will_close:
            self.close()
        seen = answer.getheader("X-Berth-Release", "none")
        if self.release and seen != self.release:
            sentence = f"{path} was answered by release {seen}, not by {self.release}: status {answer.status}."
            raise ProbeFailed(sentence, service)
        refused = answer.status == 429 or (answer.status == 503 and _code(text) == "overloaded")
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


def _code(body: bytes) -> object:
    """Return the code of a problem document; None of anything else."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found.get("code") if isinstance(found, dict) else None


def _short(body: bytes) -> str:
    return repr(body[:120].decode(errors="replace"))


def main() -> int:
    plan = json.load(sys.stdin)
    visit = Visit(**plan)
    first = ""
    for _ in range(TRIES):
        try:
            print(json.dumps({"milliseconds": visit.speed()}))
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
