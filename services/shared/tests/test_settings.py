import secrets
import subprocess
from pathlib import Path

import pytest

from auth_service.settings import AuthSettings
from shared import keys, settings
from shared.settings import load_settings
from shared.token_settings import TokenSettings
from user_service.settings import UserSettings

GOOD = "0123456789abcdef0123456789abcdef"
PRIVATE_KEY = keys.new_private_key()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ENVIRONMENT": "dev",
        "MONGO_URI": "mongodb://mongo",
        "REDIS_URI": "redis://redis",
        "JWT_SECRET_KEY": GOOD,
        "JWT_PRIVATE_KEY": PRIVATE_KEY,
        "JWT_PUBLIC_KEYS": keys.public_key(PRIVATE_KEY),
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("key", ["", "too short", "replace-me", "change-me-change-me-change-me-change-me", "a" * 64])
def test_a_service_does_not_start_with_a_key_that_others_could_know(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JWT_SECRET_KEY", key)
    with pytest.raises(SystemExit) as end:
        load_settings(AuthSettings)
    assert end.value.code == 1
    [sentence] = capsys.readouterr().err.splitlines()
    assert "JWT_SECRET_KEY" in sentence
    assert "openssl rand -hex 32" in sentence
    assert not key or key not in sentence


def test_a_key_made_as_advised_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET_KEY", secrets.token_hex(32))
    load_settings(AuthSettings)


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


SOMEBODY_ELSES = keys.public_key(keys.new_private_key())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("JWT_PRIVATE_KEY", "", "is missing"),
        ("JWT_PRIVATE_KEY", "replace-me", "is no key"),
        ("JWT_PRIVATE_KEY", "0123456789abcdef" * 2, "is no key"),
        ("JWT_PRIVATE_KEY", "-----BEGIN PRIVATE KEY-----", "is PEM"),
        ("JWT_PRIVATE_KEY", SOMEBODY_ELSES, "holds a public key: it must be an EC private key"),
        ("JWT_PUBLIC_KEYS", "", "is missing"),
        ("JWT_PUBLIC_KEYS", " , ", "is missing"),
        ("JWT_PUBLIC_KEYS", f"{SOMEBODY_ELSES},replace-me", "is no key"),
        ("JWT_PUBLIC_KEYS", PRIVATE_KEY, "holds a private key: it must be EC public keys"),
        ("JWT_PUBLIC_KEYS", SOMEBODY_ELSES, "does not hold the public key of JWT_PRIVATE_KEY"),
    ],
    # Not the keys, which are others in each process.
    ids=range(10),
)
def test_a_service_does_not_start_with_another_kind_of_key(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        load_settings(AuthSettings)
    [sentence] = capsys.readouterr().err.splitlines()
    assert sentence.startswith(name)
    assert said in sentence
    assert PRIVATE_KEY not in sentence
    assert name != "JWT_PRIVATE_KEY" or keys.MAKE_PRIVATE_KEY in sentence


def test_the_keys_that_the_advised_commands_make_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = subprocess.run(["bash", "-c", keys.MAKE_PRIVATE_KEY], check=True, capture_output=True, text=True).stdout
    told = {"input": made, "check": True, "capture_output": True, "text": True}
    public = subprocess.run(["bash", "-c", keys.MAKE_PUBLIC_KEY], **told).stdout  # type: ignore[call-overload]
    monkeypatch.setenv("JWT_PRIVATE_KEY", made)
    monkeypatch.setenv("JWT_PUBLIC_KEYS", f"{public}, {SOMEBODY_ELSES}")
    assert load_settings(AuthSettings).jwt_public_keys == [keys.public_key(made), SOMEBODY_ELSES]


def test_user_service_needs_public_keys_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JWT_PRIVATE_KEY")
    monkeypatch.delenv("JWT_SECRET_KEY")
    read = load_settings(UserSettings)
    assert not {"jwt_private_key", "jwt_secret_key"} & set(UserSettings.model_fields)
    assert read.jwt_public_keys == [keys.public_key(PRIVATE_KEY)]


def test_secrets_are_read_from_files_and_the_environment_goes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "SECRETS_DIRECTORY", tmp_path)
    monkeypatch.delenv("JWT_SECRET_KEY")
    in_file = secrets.token_hex(32)
    (tmp_path / "jwt_secret_key").write_text(in_file + "\n")
    (tmp_path / "jwt_previous_secret_keys").write_text("older-key, oldest-key\n")
    (tmp_path / "redis_uri").write_text("redis://from-file")
    read = load_settings(AuthSettings)
    assert read.jwt_secret_key.get_secret_value() == in_file
    assert [key.get_secret_value() for key in read.jwt_previous_secret_keys] == ["older-key", "oldest-key"]
    assert read.redis_uri.get_secret_value() == "redis://redis"


def test_an_empty_file_of_previous_keys_means_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "SECRETS_DIRECTORY", tmp_path)
    (tmp_path / "jwt_previous_secret_keys").write_text("")
    assert load_settings(AuthSettings).jwt_previous_secret_keys == []


def test_settings_do_not_print_secrets() -> None:
    assert GOOD not in repr(load_settings(AuthSettings))
