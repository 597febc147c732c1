"""Wiring of user_service: profiles."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from shared import tracing
from shared.app import new_app
from shared.clients.cache import open_cache
from shared.clients.database import open_database
from shared.logging import configure_logging
from shared.settings import load_settings
from shared.tokens import Verifier
from user_service.routes import PREFIX, router
from user_service.service import Profiles
from user_service.settings import UserSettings
from user_service.store import MongoRedisUserStore

SERVICE = "user_service"


def create_app(settings: UserSettings | None = None) -> FastAPI:
    """Build the application; clients open and close in its lifespan."""
    settings = settings or load_settings(UserSettings)
    configure_logging(SERVICE, settings.log_level, settings.release, settings.colour, settings.environment == "dev")
    traces = tracing.begin(SERVICE, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = open_database(settings.mongo_uri.get_secret_value(), "user_db", SERVICE)
        cache = open_cache(settings.redis_uri.get_secret_value())
        store = MongoRedisUserStore(database, cache, settings.profile_cache_seconds)
        app.state.profiles = Profiles(store, Verifier(settings.jwt_public_keys))
        app.state.checks = {"mongo": store.ping_database, "redis": store.ping_cache}
        yield
        await cache.aclose()
        database.client.close()
        await asyncio.to_thread(traces.close)

    app = new_app(title="Berth user service", prefix=PREFIX, release=settings.release, lifespan=lifespan)
    app.state.settings = settings
    app.include_router(router)
    return app
