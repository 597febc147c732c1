"""The outermost layer of every service: request ids, limits, one log line, metrics, and no bare 500."""

import asyncio
import logging
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import MEDIA_TYPE, RETRY_AFTER_SECONDS, BodyTooLarge, problem_body
from shared.logging import request_id
from shared.metrics import requests_counter, seconds_histogram

access = logging.getLogger("access")
logger = logging.getLogger("http")

BODY_LIMIT = 64 * 1024
SECONDS_LIMIT = 20.0

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
# Asked every few seconds by machines: logged only when they fail.
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


class RequestEnvelope:
    """Pure ASGI: the framework's own middleware class costs more than our whole handler."""

    def __init__(self, app: ASGIApp, seconds_limit: float = SECONDS_LIMIT) -> None:
        self.app = app
        self.seconds_limit = seconds_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Exchange(scope, receive, send).run(self.app, self.seconds_limit)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.began = time.perf_counter()
        self.status = 0
        self.received = 0
        self.declared = 0
        given = b""
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                given = value
            elif name == b"content-length" and value.isdigit():
                self.declared = int(value)
        self.id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        scope["request_id"] = self.id.decode()

    async def run(self, app: ASGIApp, seconds_limit: float) -> None:
        known_as = request_id.set(self.scope["request_id"])
        try:
            if self.declared > BODY_LIMIT:
                raise BodyTooLarge(BODY_LIMIT)
            async with asyncio.timeout(seconds_limit):
                await app(self.scope, self.receive, self.send)
        except BodyTooLarge as error:
            await self.refuse(413, "too_large", error.detail)
        except TimeoutError:
            logger.error("a request took too long")
            await self.refuse(503, "timeout", "This took too long. Please try again.")
        except Exception:
            logger.exception("unexpected error")
            await self.refuse(500, "internal", "Something unexpected went wrong. It has been logged.")
        finally:
            self.account()
            request_id.reset(known_as)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            if self.received > BODY_LIMIT:
                raise BodyTooLarge(BODY_LIMIT)
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
        await self._send(message)

    async def refuse(self, status: int, code: str, detail: str) -> None:
        if self.status:  # the answer has begun; all that is left is to end the connection
            raise ConnectionAbortedError(detail)
        headers = [(b"content-type", MEDIA_TYPE.encode())]
        if status == 503:
            headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
        body = problem_body(status, code, detail, self.scope["request_id"])
        headers.append((b"content-length", str(len(body)).encode()))
        if status == 413:
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def account(self) -> None:
        seconds = time.perf_counter() - self.began
        method = self.scope["method"] if self.scope["method"] in _METHODS else "OTHER"
        # The pattern, not the path: a path may hold anything and is not worth a metric each.
        route = getattr(self.scope.get("route"), "path", "unknown")
        status = self.status or 499
        requests_counter(method, route, status).inc()
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
