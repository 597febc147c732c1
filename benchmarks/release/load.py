"""Mixed load on the site from one machine: each request counted, none repeated. Needs nothing but the standard library.

    python3 load.py      reads the plan, one line of JSON, and goes on until another line comes or the input ends

The plan: domain, address (empty: what the name resolves to), email, password, release_key, rate (short requests a
second), and how many lanes of the long kinds: upload (10 s), slow (an answer after 10 s) and stream (an answer that
takes 10 s); the last two are routes of benchmark releases only. For another application than the sample it has
`requests` instead of email and password: for the kinds read, page and write a method, a path and a document (or null).
Prints one JSON object: for each kind of request how many, how many failed and why, and how long it took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import sys
import time
from dataclasses import dataclass, field

TIMEOUT = 60
UPLOAD_SECONDS = 10
# The maintenance page, and its document: what a visitor is to see while the site is closed. Not a failure.
CLOSED_SIGNS = (b"Back in a moment", b'"code":"maintenance"')
CLOSED = "closed"


class Failed(Exception):  # noqa: N818  # "raise Failed" says it
    """A request that was not answered as it must be."""


@dataclass
class Result:
    kind: str
    at: float
    seconds: float
    release: str
    error: str = ""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Connection:
    """One HTTP/1.1 connection. It does not repeat anything: what breaks is counted."""

    domain: str
    address: str
    # By which the site shows which release answers.
    release_key: str
    reader: asyncio.StreamReader = field(init=False)
    writer: asyncio.StreamWriter = field(init=False)
    # The server has said that it ends the connection after this answer, as any client must heed (RFC 9112, 9.6).
    ending: bool = False

    async def open(self) -> None:
        # The demo's CA is not trusted here; the release is read from X-Berth-Release.
        trusting = ssl._create_unverified_context()  # noqa: S323
        self.reader, self.writer = await asyncio.open_connection(
            self.address or self.domain, 443, ssl=trusting, server_hostname=self.domain
        )

    def head(self, method: str, path: str, headers: dict[str, str], length: int | None) -> bytes:
        headers = {**headers, "Host": self.domain, "X-Berth-Release-Key": self.release_key}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        if length is not None:
            lines += [f"Content-Length: {length}", "Content-Type: application/json"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None, pieces: int = 1
    ) -> Answer:
        """Send a request, its body in so many pieces over UPLOAD_SECONDS, and read the whole answer."""
        self.writer.write(self.head(method, path, headers, None if body is None else len(body)))
        if body:
            size = -(-len(body) // pieces)
            for start in range(0, len(body), size):
                self.writer.write(body[start : start + size])
                await self.writer.drain()
                if pieces > 1:
                    await asyncio.sleep(UPLOAD_SECONDS / pieces)
        first = await self.reader.readuntil(b"\r\n\r\n")
        status = int(first.split(b" ", 2)[1])
        found = dict(re.findall(r"^([^:\r\n]+): *([^\r\n]*)", first.decode().lower(), re.MULTILINE))
        self.ending = found.get("connection") == "close"
        if "content-length" in found:
            text = await self.reader.readexactly(int(found["content-length"]))
        elif found.get("transfer-encoding") == "chunked":
            text = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                text += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        else:
            text = b"" if status in (204, 304) else await self.reader.read()
        return Answer(status, found, text)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), 2)


class Load:
    def __init__(self, plan: dict[str, object]) -> None:
        self.plan = plan
        self.domain = str(plan["domain"])
        self.address = str(plan.get("address", ""))
        self.results: list[Result] = []
        self.stopping = asyncio.Event()
        self.bearer: dict[str, str] = {}

    def connection(self) -> Connection:
        return Connection(self.domain, self.address, str(self.plan.get("release_key", "")))

    async def run(self) -> None:
        self.requests: dict[str, tuple[str, str, object]] = dict(self.plan.get("requests", {}))  # type: ignore[call-overload]
        if not self.requests:
            await self.sign_in()
        rate = float(str(self.plan["rate"]))
        # Eight lanes of short requests, each with its share; six keep their connections, two make new ones.
        kinds = [("read", True), ("page", True), ("write", True), ("read", True), ("page", True), ("read", True)]
        lanes = [self.lane(kind, keep, rate / 8) for kind, keep in [*kinds, ("read", False), ("page", False)]]
        for kind in ("upload", "slow", "stream"):
            lanes += [self.lane(kind, False, 0) for _ in range(int(str(self.plan.get(kind, 0))))]
        if not self.requests:
            lanes.append(self.stay_signed_in())
        tasks = [asyncio.create_task(lane) for lane in lanes]
        await asyncio.to_thread(sys.stdin.readline)
        self.stopping.set()
        await asyncio.gather(*tasks)

    async def sign_in(self) -> None:
        document = json.dumps({"email": self.plan["email"], "password": self.plan["password"]}).encode()
        connection = self.connection()
        await connection.open()
        answer = await connection.ask("POST", "/api/auth/login", {}, document)
        if answer.status != 200:
            raise SystemExit(f"signing in gave {answer.status}: {answer.body[:200]!r}")
        self.bearer = {"Authorization": f"Bearer {json.loads(answer.body)['access_token']}"}
        # The first sight of a token makes the profile; that is not what is measured.
        await connection.ask("GET", "/api/users/me", self.bearer)
        await connection.close()

    async def stay_signed_in(self) -> None:
        """An access token lasts a quarter of an hour."""
        while not await self.stopped(float(str(self.plan.get("sign_in_seconds", 300)))):
            await self.timed("sign-in", self.sign_in())

    async def stopped(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
        return self.stopping.is_set()

    async def lane(self, kind: str, keep: bool, rate: float) -> None:
        """Send one request after the other, at this rate or as soon as the last is answered."""
        connection: Connection | None = None
        due = time.monotonic()
        while not self.stopping.is_set():
            due = max(due + 1 / rate, time.monotonic() - 1) if rate else 0
            if due > time.monotonic() and await self.stopped(due - time.monotonic()):
                break
            connection = await self.timed(kind if keep else f"{kind} (fresh)", self.one(kind, connection))
            if connection and (connection.ending or not keep):
                await connection.close()
                connection = None
            if not rate and await self.stopped(0.2):
                break
        if connection:
            await connection.close()

    async def one(self, kind: str, connection: Connection | None) -> tuple[Connection, str]:
        if connection is None:
            connection = self.connection()
            await connection.open()
        headers = {} if kind == "page" else self.bearer
        number = f"{time.monotonic_ns()}"
        match kind:
            case _ if self.requests:
                method, path, document = self.requests[kind]
                body = None if document is None else json.dumps(document).encode()
                answer = await connection.ask(method, path, {}, body)
                good = answer.status in (200, 201)
            case "read":
                answer = await connection.ask("GET", "/api/users/me", headers)
                good = answer.status == 200 and json.loads(answer.body)["email"] == self.plan["email"]
            case "page":
                answer = await connection.ask("GET", "/", headers)
                good = answer.status == 200 and b"/assets/" in answer.body
            case "write" | "upload":
                body = json.dumps({"bio": number + "x" * 200}).encode()
                answer = await connection.ask("PATCH", "/api/users/me", headers, body, 20 if kind == "upload" else 1)
                good = answer.status == 200 and json.loads(answer.body)["bio"].startswith(number)
            case _:
                answer = await connection.ask("GET", f"/api/users/bench/{kind}", headers)
                good = answer.status == 200 and answer.body.endswith(b"end")
        if (
            answer.status == 503
            and "retry-after" in answer.headers
            and any(sign in answer.body for sign in CLOSED_SIGNS)
        ):
            return connection, CLOSED
        if not good:
            raise Failed(f"status {answer.status}: {answer.body[:80]!r}")
        return connection, answer.headers.get("x-berth-release", "none")

    async def timed(self, kind: str, work: object) -> Connection | None:
        began, wall = time.monotonic(), time.time()
        error, release, connection = "", "", None
        try:
            done = await asyncio.wait_for(work, TIMEOUT)  # type: ignore[arg-type,var-annotated]
            connection, release = done or (None, "")
        except (OSError, EOFError, Failed, ValueError, KeyError, TimeoutError, ssl.SSLError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        self.results.append(Result(kind, wall, time.monotonic() - began, release, error))
        return connection


def summary(results: list[Result]) -> dict[str, object]:
    kinds: dict[str, dict[str, object]] = {}
    for kind in sorted({result.kind for result in results}):
        own = [result for result in results if result.kind == kind]
        times = sorted(result.seconds * 1000 for result in own if not result.error)
        kinds[kind] = {
            "requests": len(own),
            "failed": sum(bool(result.error) for result in own),
            "p50_ms": round(times[len(times) // 2], 1) if times else None,
            "p99_ms": round(times[int(len(times) * 0.99)], 1) if times else None,
        }
    short = [result for result in results if result.kind.split()[0] in ("read", "page", "write")]
    closed = [result.at for result in results if result.release == CLOSED]
    span = max(result.at for result in results) - min(result.at for result in results) if results else 0
    return {
        "requests": len(results),
        "failed": sum(bool(result.error) for result in results),
        "short_per_second": round(len(short) / span, 1) if span else 0,
        "seconds": round(span, 1),
        "closed": len(closed),
        "closed_seconds": round(max(closed) - min(closed), 1) if closed else 0,
        "kinds": kinds,
        "releases": sorted({result.release for result in results if result.release not in ("", CLOSED)}),
        "errors": [f"{result.at:.1f} {result.kind}: {result.error}" for result in results if result.error][:50],
        "failed_at": [round(result.at, 1) for result in results if result.error],
        # For whoever wants times by phase: second -> milliseconds of the short ones.
        "by_second": _by_second(short),
    }


def _by_second(short: list[Result]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for result in short:
        if not result.error and result.release != CLOSED and not result.kind.endswith("(fresh)"):
            found.setdefault(int(result.at), []).append(round(result.seconds * 1000, 1))
    return found


async def main() -> None:
    load = Load(json.loads(sys.stdin.readline()))
    await load.run()
    print(json.dumps(summary(load.results)))


if __name__ == "__main__":
    asyncio.run(main())
