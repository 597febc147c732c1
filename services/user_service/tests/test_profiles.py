from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from shared import keys
from shared.tokens import Claims, Signer, Verifier
from user_service.main import create_app
from user_service.schemas import Profile
from user_service.service import Profiles
from user_service.settings import UserSettings
from user_service.store import Known

PRIVATE_KEY = keys.new_private_key()
PUBLIC_KEY = keys.public_key(PRIVATE_KEY)
ADA = Claims(sub="ada-id", email="ada@example.com", sid="session", name="Ada")


class MemoryUserStore:
    def __init__(self) -> None:
        self.profiles: dict[str, Profile] = {}
        self.revoked: set[str] = set()

    async def known(self, claims: Claims) -> Known:
        return Known(claims.sid in self.revoked, self.profiles.get(claims.sub))

    async def find_or_create(self, claims: Claims, now: datetime) -> Profile:
        first = Profile(id=claims.sub, email=claims.email, name=claims.name, bio="", updated_at=now)
        return self.profiles.setdefault(claims.sub, first)

    async def change(self, claims: Claims, fields: dict[str, str], now: datetime) -> Profile:
        profile = await self.find_or_create(claims, now)
        self.profiles[claims.sub] = profile.model_copy(update={**fields, "updated_at": now})
        return self.profiles[claims.sub]


@pytest.fixture
def store() -> MemoryUserStore:
    return MemoryUserStore()


@pytest.fixture
def sign_in(store: MemoryUserStore) -> Callable[[Claims], TestClient]:
    """A browser of whoever the claims name."""
    settings = UserSettings(
        environment="dev",
        mongo_uri=SecretStr("mongodb://nowhere"),
        redis_uri=SecretStr("redis://nowhere"),
        jwt_public_keys=[PUBLIC_KEY],
    )
    app = create_app(settings)
    app.state.profiles = Profiles(store, Verifier([PUBLIC_KEY]))

    def client(claims: Claims) -> TestClient:
        token = Signer(PRIVATE_KEY, [PUBLIC_KEY]).sign(claims, 60)
        return TestClient(app, headers={"Authorization": f"Bearer {token}"})

    return client


@pytest.fixture
def ada(sign_in: Callable[[Claims], TestClient]) -> TestClient:
    return sign_in(ADA)


def test_a_profile_is_there_at_first_sight_with_the_name_from_sign_up(ada: TestClient) -> None:
    profile = ada.get("/api/users/me")
    assert profile.status_code == 200
    assert profile.json() | {"updated_at": ""} == {
        "id": "ada-id",
        "email": "ada@example.com",
        "name": "Ada",
        "bio": "",
        "updated_at": "",
    }


def test_what_is_not_sent_stays(ada: TestClient) -> None:
    ada.patch("/api/users/me", json={"bio": "Poet\nof numbers"})
    changed = ada.patch("/api/users/me", json={"name": "Countess"}).json()
    assert (changed["name"], changed["bio"]) == ("Countess", "Poet\nof numbers")
    assert ada.get("/api/users/me").json() == changed


def test_a_field_can_be_emptied(ada: TestClient) -> None:
    assert ada.patch("/api/users/me", json={"name": ""}).json()["name"] == ""


def test_changing_nothing_changes_nothing(ada: TestClient) -> None:
    before = ada.get("/api/users/me").json()
    assert ada.patch("/api/users/me", json={}).json() == before


def test_one_does_not_see_another(ada: TestClient, sign_in: Callable[[Claims], TestClient]) -> None:
    ada.patch("/api/users/me", json={"bio": "mine"})
    bob = sign_in(replace(ADA, sub="bob-id", email="bob@example.com", name="Bob"))
    assert bob.get("/api/users/me").json()["bio"] == ""


@pytest.mark.parametrize(
    "change",
    [
        {"name": "x" * 81},
        {"bio": "x" * 501},
        {"name": None},
        {"bio": "\x00"},
        {"name": "a\nb"},
        {"email": "e"},
        {"id": 1},
    ],
)
def test_what_is_not_acceptable_is_refused(ada: TestClient, change: dict[str, object]) -> None:
    answer = ada.patch("/api/users/me", json=change)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] in change


def test_without_a_token_nobody_gets_in(ada: TestClient) -> None:
    del ada.headers["Authorization"]
    for answer in (ada.get("/api/users/me"), ada.patch("/api/users/me", json={})):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_session_that_ended_elsewhere_ends_here(ada: TestClient, store: MemoryUserStore) -> None:
    assert ada.get("/api/users/me").status_code == 200
    store.revoked.add("session")
    answer = ada.get("/api/users/me")
    assert answer.status_code == 401
    assert answer.json()["code"] == "session_revoked"


def test_a_wrong_method_is_told_all_the_right_ones(ada: TestClient) -> None:
    answer = ada.put("/api/users/me")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, PATCH"
