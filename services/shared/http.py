"""The outermost layer of every service: request ids, limits, one log line, metrics, and no bare 500.

A status of 500 or more is evidence against a release, so nothing that a client does alone is accounted as one.
"""

import asyncio
import logging
import re
import time
import uuid
from dataclasses import dataclass
from enum import Enum, auto

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import MEDIA_TYPE, RETRY_AFTER_SECONDS, BodyTooLarge, problem_body
from shared.logging import request_id
from shared.marks import MALFORMED, OVERLOAD
from shared.metrics import OVERLOADED, requests_counter, seconds_histogram

access = logging.getLogger("access")
logger = logging.getLogger("http")

BODY_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Limits:
    """Seconds that one request may spend on each of its parts; each part has its own, so none is blamed on another.

    Together less than gunicorn's graceful timeout for every request that keeps at most one of them waiting.
    """

    # Until the whole body is here: 3 kB/s for the largest one.
    body: float = 20.0
    # Of the service itself.
    own: float = 20.0
    # Until the client has taken the answer.
    answer: float = 20.0


LIMITS = Limits()

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
# Asked every few seconds by machines: logged only when they fail.
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


class RequestEnvelope:
    """Pure ASGI: the framework's own middleware class costs more than our whole handler."""

    def __init__(self, app: ASGIApp, limits: Limits | None = None) -> None:
        self.app = app
        self.limits = limits or LIMITS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Exchange(scope, receive, send, self.limits).run(self.app)


class _On(Enum):
    """What a request waits for."""

    BODY = auto()
    OWN = auto()
    ANSWER = auto()


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: Limits) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.status = 0
        self.received = 0
        self.declared = 0
        # Whether the body has come to its end.
        self.whole = True
        # Whether the client went away before it was answered.
        self.gone = False
        # Accounted instead of the status, where the answer had begun before it went wrong.
        self.fault = 0
        given = b""
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                given = value
            elif name == b"content-length" and value.isdigit():
                self.declared = int(value)
                self.whole = self.whole and not self.declared
            elif name == b"transfer-encoding":
                self.whole = False
        self.id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        scope["request_id"] = self.id.decode()
        self.limits = {_On.BODY: limits.body, _On.OWN: limits.own, _On.ANSWER: limits.answer}
        self.spent = dict.fromkeys(_On, 0.0)
        self.on, self.since = _On.OWN, time.perf_counter()
        self.late: _On | None = None

    async def run(self, app: ASGIApp) -> None:
        known_as = request_id.set(self.scope["request_id"])
        try:
            if self.declared > BODY_LIMIT:
                raise BodyTooLarge(BODY_LIMIT)
            async with asyncio.timeout(None) as self.clock:
                self.loop = asyncio.get_running_loop()
                self.timer = self.loop.call_later(min(self.limits.values()), self.look)
                try:
                    await app(self.scope, self.receive, self.send)
                finally:
                    self.timer.cancel()
        except BodyTooLarge as error:
            await self.refuse(413, "too_large", error.detail)
        except TimeoutError:
            await self.end()
        except Exception:
            if self.gone:
                return
            logger.exception("unexpected error")
            await self.refuse(500, "internal", "Something unexpected went wrong. It has been logged.")
        finally:
            self.account()
            request_id.reset(known_as)

    def turn(self, on: _On) -> None:
        """From now on the request waits for this."""
        now = time.perf_counter()
        self.spent[self.on] += now - self.since
        self.on, self.since = on, now

    def look(self) -> None:
        """End the request if what it waits for is late. One timer in most requests' lives, and it does not fire."""
        self.turn(self.on)
        left = {on: self.limits[on] - self.spent[on] for on in _On}
        if left[self.on] <= 0:
            self.late = self.on
            self.clock.reschedule(self.loop.time())
            return
        self.timer = self.loop.call_later(min(each for each in left.values() if each > 0), self.look)

    async def end(self) -> None:
        if self.late is _On.BODY:
            logger.info("a body did not come in time")
            await self.refuse(408, "request_timeout", "The request's body did not arrive in time.")
        elif self.late is _On.ANSWER:
            logger.info("an answer was not taken in time")
            raise ConnectionAbortedError("The answer was not taken in time.")
        else:
            logger.error("a request took too long")
            await self.refuse(503, "timeout", "This took too long. Please try again.")

    async def receive(self) -> Message:
        awaited = not self.whole and not self.status
        if awaited:
            self.turn(_On.BODY)
        try:
            message = await self._receive()
        finally:
            if awaited:
                self.turn(_On.OWN)
        if message["type"] == "http.request":
            self.whole = not message.get("more_body", False)
            self.received += len(message.get("body", b""))
            if self.received > BODY_LIMIT:
                raise BodyTooLarge(BODY_LIMIT)
        elif not self.status:
            self.gone = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message.setdefault("headers", [])
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self.id),
                # Answers are about one person, or about this second.
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
            ]
        self.turn(_On.ANSWER)
        try:
            await self._send(message)
        finally:
            self.turn(_On.OWN)

    async def refuse(self, status: int, code: str, detail: str) -> None:
        if self.status:  # the answer has begun; all that is left is to end the connection
            self.fault = status
            raise ConnectionAbortedError(detail)
        headers = [(b"content-type", MEDIA_TYPE.encode())]
        if status == 503:
            headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
        body = problem_body(status, code, detail, self.scope["request_id"])
        headers.append((b"content-length", str(len(body)).encode()))
        if status in (408, 413):
            # The rest of the body is not read, so the connection cannot carry another request.
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def outcome(self) -> int:
        """Return the status to account: what the client was told, or whose fault it is that it was not."""
        if self.scope.get(MALFORMED):
            return 400
        if self.gone or (not self.status and self.on is _On.BODY):
            return 499
        # Who ends without an answer has failed, though the server may send a 500 of its own.
        return self.fault or self.status or 500

    def route(self) -> str:
        """Return the pattern, not the path: a path may hold anything and is not worth a metric each."""
        if route := getattr(self.scope.get("route"), "path", ""):
            return str(route)
        # The framework gives the description no pattern; the release program asks for it, and tells it by this.
        described = getattr(self.scope.get("app"), "openapi_url", "")
        return str(described) if self.scope["path"] == described else "unknown"

    def account(self) -> None:
        self.turn(self.on)
        # A client that is slow to send or to read makes no request slow.
        seconds = self.spent[_On.OWN]
        method = self.scope["method"] if self.scope["method"] in _METHODS else "OTHER"
        route = self.route()
        status = self.outcome()
        requests_counter(method, route, OVERLOADED if self.scope.get(OVERLOAD) else str(status)).inc()
        seconds_histogram(method, route).observe(seconds)
        if route not in QUIET or status >= 400:
            access.log(
                logging.WARNING if status >= 500 else logging.INFO,
                "request",
                extra={
                    "method": method,
                    "route": route,
                    "status": status,
                    "ms": round(seconds * 1000, 2),
                },
            )
