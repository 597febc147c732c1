"""Wiring of auth_service: accounts, sign-in, sessions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from auth_service.routes import PREFIX, router
from auth_service.service import Auth
from auth_service.settings import AuthSettings
from auth_service.store import MongoRedisAuthStore
from shared import tracing
from shared.app import new_app
from shared.clients.cache import open_cache
from shared.clients.database import open_database
from shared.logging import configure_logging
from shared.queue import TaskQueue
from shared.security import Passwords
from shared.settings import load_settings
from shared.tokens import KeyRing

SERVICE = "auth_service"


def create_app(settings: AuthSettings | None = None) -> FastAPI:
    """Build the application; clients open and close in its lifespan."""
    settings = settings or load_settings(AuthSettings)
    configure_logging(SERVICE, settings.log_level, settings.release, settings.colour, settings.environment == "dev")
    traces = tracing.begin(SERVICE, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = open_database(settings.mongo_uri.get_secret_value(), "auth_db", SERVICE)
        cache = open_cache(settings.redis_uri.get_secret_value())
        queue = TaskQueue(settings.redis_uri.get_secret_value())
        passwords = Passwords()
        store = MongoRedisAuthStore(database, cache)
        app.state.auth = Auth(settings, store, passwords, KeyRing.from_settings(settings), queue)
        app.state.checks = {"mongo": store.ping_database, "redis": store.ping_cache}
        yield
        passwords.close()
        await queue.close()
        await cache.aclose()
        database.client.close()
        await asyncio.to_thread(traces.close)

    app = new_app(title="Berth auth service", prefix=PREFIX, release=settings.release, lifespan=lifespan)
    app.state.settings = settings
    app.include_router(router)
    return app
