"""What every service's create_app begins with."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.telemetry import TelemetryConfig

from shared import health, tracing
from shared.docs import docs_router
from shared.errors import Problem, install_error_handlers
from shared.http import QUIET, RequestEnvelope

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
LifespanSteps = AsyncIterator[None]


def new_app(title: str, prefix: str, release: str, lifespan: Lifespan) -> FastAPI:
    """An application with health routes, problem documents, and its OpenAPI description under its prefix."""
    app = FastAPI(
        title=title,
        version=release,
        lifespan=lifespan,
        openapi_url=f"{prefix}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=cast(TelemetryConfig, tracing.active().fastapi(QUIET)),
    )
    app.add_middleware(RequestEnvelope)
    install_error_handlers(app)
    app.include_router(health.router)
    app.include_router(docs_router(f"{prefix}/docs"))

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            definitions = problem.pop("$defs")
            schema.setdefault("components", {}).setdefault("schemas", {}).update({**definitions, "Problem": problem})
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]
    return app
