from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auth_service.main import create_app, wire
from auth_service.service import Auth
from auth_service.settings import AuthSettings
from auth_service.tests.memory import MemoryAuthStore, MemoryCounters, MemoryQueue
from shared import keys
from shared.security import Passwords
from shared.tokens import Signer

KEY = "0123456789abcdef0123456789abcdef"
PRIVATE_KEY = keys.new_private_key()
PUBLIC_KEY = keys.public_key(PRIVATE_KEY)
PASSWORD = "correct horse battery staple"
ADA = "ada@example.com"
COOKIE = "__Host-refresh_token"


class Journal:
    """Notes when an answer has left, among what else is noted."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.lines: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.lines.append("answer")

        await self._app(scope, receive, noting)


@dataclass
class Person:
    """Somebody at a browser."""

    client: TestClient
    journal: Journal
    auth: Auth
    store: MemoryAuthStore
    counters: MemoryCounters
    queue: MemoryQueue
    passwords: Passwords
    settings: AuthSettings

    def trust(self, *proxies: str) -> None:
        """Put these proxies before the service."""
        self.settings.trusted_proxies = [ip_network(proxy) for proxy in proxies]

    def post(self, path: str, body: Any = None, **more: Any) -> Response:
        return self.client.post(f"/api/auth/{path}", json=body, **more)

    def register(self, email: str = ADA, password: str = PASSWORD, name: str = "Ada", **more: Any) -> Response:
        return self.post("register", {"email": email, "password": password, "name": name}, **more)

    def verify(self, token: str, password: str = PASSWORD) -> Response:
        return self.post("verify", {"token": token, "password": password})

    def sign_up(self, email: str = ADA) -> None:
        assert self.register(email).status_code == 202
        assert self.verify(self.queue.last_token).status_code == 200
        # What the next mail to this address would have to wait for.
        self.counters.let_pass(self.settings.mail_pause_seconds)

    def sign_in(self, password: str = PASSWORD, email: str = ADA, **more: Any) -> Response:
        return self.post("login", {"email": email, "password": password}, **more)

    def me(self, access_token: str) -> Response:
        return self.client.get("/api/auth/me", headers=bearer(access_token))

    @property
    def cookie(self) -> str:
        return self.client.cookies[COOKIE]

    @cookie.setter
    def cookie(self, value: str) -> None:
        self.client.cookies.clear()
        self.client.cookies.set(COOKIE, value, domain="berth.test", path="/")


def bearer(access_token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {access_token}"}


def coming_from(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


@pytest.fixture
def settings() -> AuthSettings:
    return AuthSettings(
        environment="production",
        public_url="https://berth.test/",
        mongo_uri=SecretStr("mongodb://nowhere"),
        redis_uri=SecretStr("redis://nowhere"),
        jwt_private_key=SecretStr(PRIVATE_KEY),
        jwt_public_keys=[PUBLIC_KEY],
        jwt_secret_key=SecretStr(KEY),
    )


@pytest.fixture
def person(settings: AuthSettings) -> Iterator[Person]:
    app = create_app(settings)
    store, counters, queue, passwords = MemoryAuthStore(), MemoryCounters(), MemoryQueue(), Passwords()
    # Thousands of passwords are tried here; how long each takes is tested elsewhere.
    passwords._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    passwords._nobody = passwords._hasher.hash("nobody")
    signer = Signer(PRIVATE_KEY, [PUBLIC_KEY])
    app.state.auth = auth = wire(settings, store, counters, passwords, signer, queue)  # type: ignore[arg-type]
    journal = Journal(app)
    client = TestClient(journal, base_url="https://berth.test", raise_server_exceptions=False)
    yield Person(client, journal, auth, store, counters, queue, passwords, settings)
    passwords.close()
