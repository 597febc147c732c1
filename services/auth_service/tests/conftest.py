from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import SecretStr

from auth_service.main import create_app
from auth_service.service import Auth
from auth_service.settings import AuthSettings
from auth_service.tests.memory import MemoryAuthStore, MemoryQueue
from shared.security import Passwords
from shared.tokens import KeyRing

KEY = "0123456789abcdef0123456789abcdef"
PASSWORD = "correct horse battery staple"


@dataclass
class Person:
    """Somebody at a browser."""

    client: TestClient
    store: MemoryAuthStore
    queue: MemoryQueue
    passwords: Passwords

    def post(self, path: str, body: Any = None, **more: Any) -> Response:
        return self.client.post(f"/api/auth/{path}", json=body, **more)

    def register(self, email: str = "ada@example.com") -> Response:
        return self.post("register", {"email": email, "password": PASSWORD, "name": "Ada"})

    def sign_up(self, email: str = "ada@example.com") -> None:
        assert self.register(email).status_code == 201
        assert self.post("verify", {"token": self.queue.last_token}).status_code == 200

    def sign_in(self, password: str = PASSWORD, email: str = "ada@example.com", **more: Any) -> Response:
        return self.post("login", {"email": email, "password": password}, **more)

    def me(self, access_token: str) -> Response:
        return self.client.get("/api/auth/me", headers={"Authorization": f"Bearer {access_token}"})

    @property
    def cookie(self) -> str:
        return self.client.cookies["refresh_token"]

    @cookie.setter
    def cookie(self, value: str) -> None:
        self.client.cookies.clear()
        self.client.cookies.set("refresh_token", value, domain="berth.test", path="/api/auth")


@pytest.fixture
def settings() -> AuthSettings:
    return AuthSettings(
        environment="production",
        public_url="https://berth.test/",
        mongo_uri=SecretStr("mongodb://nowhere"),
        redis_uri=SecretStr("redis://nowhere"),
        jwt_secret_key=SecretStr(KEY),
    )


@pytest.fixture
def person(settings: AuthSettings) -> Iterator[Person]:
    app = create_app(settings)
    store, queue, passwords = MemoryAuthStore(), MemoryQueue(), Passwords()
    app.state.auth = Auth(settings, store, passwords, KeyRing(KEY, []), queue)  # type: ignore[arg-type]
    client = TestClient(app, base_url="https://berth.test", raise_server_exceptions=False)
    yield Person(client, store, queue, passwords)
    passwords.close()
