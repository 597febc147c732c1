"""The front end's types come from documents; the documents are what the services say of themselves."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
from pydantic import SecretStr

import auth_service.main
import user_service.main
from auth_service.settings import AuthSettings
from shared import keys
from tests.support import ROOT
from user_service.settings import UserSettings

PRIVATE_KEY = keys.new_private_key()
VALUES: dict[str, Any] = {
    "jwt_private_key": SecretStr(PRIVATE_KEY),
    "jwt_public_keys": [keys.public_key(PRIVATE_KEY)],
    "jwt_secret_key": SecretStr(secrets.token_hex(32)),
    "mongo_uri": SecretStr("mongodb://database.invalid/x"),
    "redis_uri": SecretStr("redis://queue.invalid/0"),
    "public_url": "https://site.example",
}


@pytest.mark.parametrize(
    ("name", "app"),
    [
        ("auth_service", auth_service.main.create_app(AuthSettings(**VALUES))),
        ("user_service", user_service.main.create_app(UserSettings(**VALUES))),
    ],
)
def test_the_checked_in_document_is_the_services_own(name: str, app: Any) -> None:
    checked_in = json.loads((ROOT / "frontend" / "openapi" / f"{name}.json").read_text())
    assert checked_in == app.openapi(), f"write frontend/openapi/{name}.json anew, then npm run api-types"
