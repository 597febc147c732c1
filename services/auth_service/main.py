"""Wiring of auth_service: accounts, sign-in, sessions."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from auth_service.counters import RedisCounters
from auth_service.limits import Counters, Limits
from auth_service.mails import Mails
from auth_service.routes import PREFIX, router
from auth_service.service import Auth
from auth_service.sessions import Sessions
from auth_service.settings import AuthSettings
from auth_service.store import AuthStore, MongoRedisAuthStore
from shared import tracing
from shared.app import new_app
from shared.clients.cache import open_cache
from shared.clients.database import DatabaseError, open_database
from shared.logging import configure_logging
from shared.queue import TaskQueue
from shared.security import Passwords
from shared.settings import load_settings
from shared.tokens import Signer

logger = logging.getLogger("housekeeping")

SERVICE = "auth_service"
PURGE_EVERY_SECONDS = 3600
# Not while a release is tried out, and not at a restart that is followed by the next.
PURGE_FIRST_SECONDS = 60


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
        signer = Signer(settings.jwt_private_key.get_secret_value(), settings.jwt_public_keys)
        store = MongoRedisAuthStore(database, cache)
        app.state.auth = auth = wire(settings, store, RedisCounters(cache), passwords, signer, queue)
        app.state.checks = {"mongo": store.ping_database, "redis": store.ping_cache}
        purging = asyncio.create_task(_purge_now_and_then(auth))
        yield
        purging.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await purging
        passwords.close()
        await queue.close()
        await cache.aclose()
        database.client.close()
        await asyncio.to_thread(traces.close)

    app = new_app(title="Berth auth service", prefix=PREFIX, release=settings.release, lifespan=lifespan)
    app.state.settings = settings
    app.include_router(router)
    return app


def wire(
    settings: AuthSettings, store: AuthStore, counters: Counters, passwords: Passwords, signer: Signer, queue: TaskQueue
) -> Auth:
    """Put the rules together."""
    limits = Limits(settings, counters)
    mails = Mails(settings, store, limits, queue)
    return Auth(settings, store, passwords, Sessions(settings, store, signer), limits, mails)


async def _purge_now_and_then(auth: Auth) -> None:
    await asyncio.sleep(PURGE_FIRST_SECONDS)
    while True:
        try:
            if purged := await auth.purge_unverified():
                logger.info("purged unverified accounts", extra={"count": purged})
        except DatabaseError as error:
            logger.warning("unverified accounts were not purged: %.200s", error)
        await asyncio.sleep(PURGE_EVERY_SECONDS)
