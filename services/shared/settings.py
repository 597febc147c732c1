"""Settings every service has, and how they are read: environment first, then files in /run/secrets."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SECRETS_DIRECTORY = Path("/run/secrets")

SIGNING_KEY_HINT = (
    "JWT_SECRET_KEY must be a secret of your own with at least 32 characters; make one with `openssl rand -hex 32`."
)
_COLLECTOR = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\])(:[1-9]\d{0,4})?(/[A-Za-z0-9._~/-]+)")
_COLLECTOR_HINT = (
    "must be where a collector takes OTLP over HTTP, with its path and without a password,"
    " such as https://collector.your-company.net:4318/v1/traces."
)
_EXAMPLE_WORDS = ("change", "replace", "example", "insert", "secret", "default")


def _check_signing_key(value: SecretStr) -> SecretStr:
    """Refuse what anybody could guess: short, copied from an example, or typed with one finger."""
    key = value.get_secret_value()
    if len(key) < 32 or len(set(key)) < 8 or any(word in key.lower() for word in _EXAMPLE_WORDS):
        raise ValueError(SIGNING_KEY_HINT)
    return value


def _check_collector(value: str) -> str:
    """Refuse an address that no span would ever arrive at."""
    if value and not _COLLECTOR.fullmatch(value):
        raise ValueError(_COLLECTOR_HINT)
    return value


def _split_keys(value: Any) -> Any:
    """Read "a,b" from the environment or a file as two keys."""
    return [key.strip() for key in value.split(",") if key.strip()] if isinstance(value, str) else value


SigningKey = Annotated[SecretStr, AfterValidator(_check_signing_key)]


class CommonSettings(BaseSettings):
    """What every service is told."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    environment: Literal["dev", "demo", "production"] = "production"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    release: str = "unreleased"
    colour: str = ""
    public_url: str = "http://localhost:5173"
    mongo_uri: SecretStr
    redis_uri: SecretStr
    # Where traces go; empty for none.
    traces_endpoint: Annotated[str, AfterValidator(_check_collector)] = ""
    # How many of the requests are traced, from 0 to 1, where nobody before us has decided.
    traces_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0

    @property
    def site(self) -> str:
        """The public address without a slash at its end."""
        return self.public_url.rstrip("/")

    @property
    def is_https(self) -> bool:
        return self.public_url.startswith("https://")

    @model_validator(mode="after")
    def _production_is_https(self) -> Self:
        if self.environment == "production" and not self.is_https:
            raise ValueError("PUBLIC_URL must begin with https:// when ENVIRONMENT is production.")
        return self


class TokenSettings(CommonSettings):
    """What the services that read access tokens are told as well."""

    jwt_secret_key: SigningKey
    # Keys of yesterday: they still verify, so rotating logs nobody out. Comma separated.
    jwt_previous_secret_keys: Annotated[list[SecretStr], NoDecode, BeforeValidator(_split_keys)] = []


S = TypeVar("S", bound=CommonSettings)


def load_settings(kind: type[S]) -> S:
    """Read the settings, or end the process with a sentence for each that is missing or wrong."""
    directory = SECRETS_DIRECTORY if SECRETS_DIRECTORY.is_dir() else None
    try:
        return kind(_secrets_dir=directory)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            print(_sentence(problem["loc"], problem["type"], problem["msg"]), file=sys.stderr)
        raise SystemExit(1) from None


def _sentence(location: tuple[int | str, ...], kind: str, message: str) -> str:
    name = str(location[0]).upper() if location else ""
    if name == "JWT_SECRET_KEY":
        return SIGNING_KEY_HINT
    if kind == "missing":
        return f"{name} is missing: set it in the environment or in {SECRETS_DIRECTORY}/{name.lower()}."
    text = message.removeprefix("Value error, ")
    return f"{name}: {text}" if name else text
