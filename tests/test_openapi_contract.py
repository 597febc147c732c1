"""The front end's types come from documents; the documents are what the services say of themselves."""

from __future__ import annotations

import json

import pytest

import openapi


def test_every_service_with_routes_is_looked_at() -> None:
    assert {"auth_service", "user_service"} <= {folder.name for folder in openapi.folders()}


@pytest.mark.parametrize("name", [folder.name for folder in openapi.folders()])
def test_the_checked_in_document_is_the_services_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in openapi.settings().items():
        monkeypatch.setenv(variable, value)
    checked_in = json.loads((openapi.HERE / name / openapi.NAME).read_text())
    assert checked_in == openapi.document(name), "run `make openapi`"
