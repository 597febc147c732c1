"""One shape for every error: an RFC 9457 problem document with `code` and `request_id`."""

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from shared.clients.cache import CacheError
from shared.clients.database import DatabaseError
from shared.marks import OVERLOAD

logger = logging.getLogger("errors")

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
BEARER: Mapping[str, str] = MappingProxyType({"WWW-Authenticate": "Bearer"})

# Python's own names for these differ between its versions.
_HTTP_CODES = {413: "too_large", 422: "invalid"}


class ServiceError(Exception):
    """A refusal the caller can act on. Subclasses say which."""

    status = 400
    code = "bad_request"
    headers: Mapping[str, str] = MappingProxyType({})
    # Fields that were refused, for a form to show beside them.
    errors: list[dict[str, str]] | None = None
    # What is done once the answer has left.
    after: Callable[[], Awaitable[None]] | None = None

    def __init__(self, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if headers is not None:
            self.headers = headers


class Unauthenticated(ServiceError):
    status = 401
    code = "unauthenticated"
    headers = BEARER


class TooManyRequests(ServiceError):
    status = 429
    code = "too_many_requests"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail, {"Retry-After": str(retry_after)})


class Unavailable(ServiceError):
    status = 503
    code = "unavailable"

    def __init__(self, detail: str, retry_after: int = RETRY_AFTER_SECONDS) -> None:
        super().__init__(detail, {"Retry-After": str(retry_after)})


class Overloaded(Unavailable):
    """Refused because of how much others ask at this moment, which says nothing about this release."""

    code = "overloaded"


class BodyTooLarge(HTTPException):
    """Raised while a body is read, where FastAPI lets no other kind of error through."""

    def __init__(self, limit: int) -> None:
        # The rest of the body is not read, so the connection cannot carry another request.
        super().__init__(413, f"A request may have at most {limit} bytes.", {"Connection": "close"})


class FieldProblem(BaseModel):
    """One field that was refused, and why."""

    field: str
    message: str


class Problem(BaseModel):
    """What every error answer looks like (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem] | None = None


def problem_body(
    status: int, code: str, detail: str, request_id: str, errors: list[dict[str, str]] | None = None
) -> bytes:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    if errors is not None:
        body["errors"] = errors
    # ASCII only: a lone surrogate in a refused field name must not turn a 422 into a 500.
    return json.dumps(body, ensure_ascii=True).encode()


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's word on the problems a route can answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in sorted(statuses)}


def install_error_handlers(app: FastAPI) -> None:
    """Turn every error into a problem document."""

    @app.exception_handler(ServiceError)
    async def on_service_error(request: Request, error: ServiceError) -> Response:
        request.scope[OVERLOAD] = isinstance(error, Overloaded)
        response = _answer(request, error.status, error.code, error.detail, error.headers, error.errors)
        if error.after is not None:
            response.background = BackgroundTask(error.after)
        return response

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        # What was sent is not sent back: it may be a password, or not be valid Unicode.
        errors = [
            {"field": ".".join(str(part) for part in each["loc"][1:]), "message": str(each["msg"])}
            for each in error.errors()
        ]
        return _answer(request, 422, "invalid", "Some fields are missing or not acceptable.", {}, errors)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        status = error.status_code
        headers = dict(error.headers or {})
        if status == 405:
            headers["Allow"] = ", ".join(sorted(_allowed_methods(app.routes, request)))
        code = _HTTP_CODES.get(status) or HTTPStatus(status).name.lower()
        return _answer(request, status, code, str(error.detail), headers)

    @app.exception_handler(DatabaseError)
    @app.exception_handler(CacheError)
    async def on_unavailable(request: Request, error: Exception) -> Response:
        logger.error("a dependency failed", exc_info=error)
        unavailable = Unavailable("A part of the service is not available right now. Please try again.")
        return await on_service_error(request, unavailable)


def _allowed_methods(routes: Iterable[BaseRoute], request: Request) -> set[str]:
    # Starlette names the methods of the first route with this path; a path may have several routes.
    allowed: set[str] = set()
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            allowed |= _allowed_methods(included.routes, request)
        elif route.matches(request.scope)[0] is not Match.NONE:
            allowed |= getattr(route, "methods", None) or set()
    return allowed


def _answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str],
    errors: list[dict[str, str]] | None = None,
) -> Response:
    request_id = request.scope.get("request_id", "")
    body = problem_body(status, code, detail, request_id, errors)
    response = Response(body, status, media_type=MEDIA_TYPE)
    MutableHeaders(raw=response.raw_headers).update(headers)
    return response
