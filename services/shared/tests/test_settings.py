import secrets
from pathlib import Path

import pytest

from shared import settings
from shared.settings import TokenSettings, load_settings

GOOD = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ENVIRONMENT": "dev",
        "MONGO_URI": "mongodb://mongo",
        "REDIS_URI": "redis://redis",
        "JWT_SECRET_KEY": GOOD,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("key", ["", "too short", "replace-me", "change-me-change-me-change-me-change-me", "a" * 64])
def test_a_service_does_not_start_with_a_key_that_others_could_know(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JWT_SECRET_KEY", key)
    with pytest.raises(SystemExit) as end:
        load_settings(TokenSettings)
    assert end.value.code == 1
    [sentence] = capsys.readouterr().err.splitlines()
    assert "JWT_SECRET_KEY" in sentence
    assert "openssl rand -hex 32" in sentence
    assert not key or key not in sentence


def test_a_key_made_as_advised_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET_KEY", secrets.token_hex(32))
    load_settings(TokenSettings)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("MONGO_URI")
    with pytest.raises(SystemExit):
        load_settings(TokenSettings)
    assert capsys.readouterr().err.startswith("MONGO_URI is missing")


def test_production_is_reached_over_https(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("PUBLIC_URL", "http://berth.test")
    with pytest.raises(SystemExit):
        load_settings(TokenSettings)
    assert "PUBLIC_URL" in capsys.readouterr().err


def test_secrets_are_read_from_files_and_the_environment_goes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "SECRETS_DIRECTORY", tmp_path)
    monkeypatch.delenv("JWT_SECRET_KEY")
    in_file = secrets.token_hex(32)
    (tmp_path / "jwt_secret_key").write_text(in_file + "\n")
    (tmp_path / "jwt_previous_secret_keys").write_text("older-key, oldest-key\n")
    (tmp_path / "redis_uri").write_text("redis://from-file")
    read = load_settings(TokenSettings)
    assert read.jwt_secret_key.get_secret_value() == in_file
    assert [key.get_secret_value() for key in read.jwt_previous_secret_keys] == ["older-key", "oldest-key"]
    assert read.redis_uri.get_secret_value() == "redis://redis"


def test_an_empty_file_of_previous_keys_means_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "SECRETS_DIRECTORY", tmp_path)
    (tmp_path / "jwt_previous_secret_keys").write_text("")
    assert load_settings(TokenSettings).jwt_previous_secret_keys == []


def test_settings_do_not_print_secrets() -> None:
    assert GOOD not in repr(load_settings(TokenSettings))
