"""Settings every service has, and how they are read: environment first, then files in /run/secrets."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared import rules

SECRETS_DIRECTORY = Path(os.environ.get("SECRETS_DIRECTORY") or "/run/secrets")


def keeps(rule: Callable[[str], str]) -> AfterValidator:
    """Refuse a value that breaks a rule, with what the rule says."""

    def check(value: str | SecretStr) -> str | SecretStr:
        if problem := rule(value.get_secret_value() if isinstance(value, SecretStr) else value):
            raise ValueError(f"{problem}.")
        return value

    return AfterValidator(check)


def split_list(value: Any) -> Any:
    """Read "a,b" from the environment or a file as two values."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


SigningKey = Annotated[SecretStr, Field(description=rules.SIGNING_KEY_HINT), keeps(rules.signing_key_problem)]


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
    traces_endpoint: Annotated[str, keeps(rules.collector_problem)] = ""
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


S = TypeVar("S", bound=CommonSettings)


def load_settings(kind: type[S]) -> S:
    """Read the settings, or end the process with a sentence for each that is missing or wrong."""
    directory = SECRETS_DIRECTORY if SECRETS_DIRECTORY.is_dir() else None
    try:
        return kind(_secrets_dir=directory)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            print(_sentence(kind, problem["loc"], problem["type"], problem["msg"]), file=sys.stderr)
        raise SystemExit(1) from None


def _sentence(settings: type[CommonSettings], location: tuple[int | str, ...], kind: str, message: str) -> str:
    name = str(location[0]).upper() if location else ""
    field = settings.model_fields.get(name.lower())
    # Of a value that has to be made, how.
    hint = field.description if field else None
    if kind in ("missing", "too_short") and hint:
        return f"{name} is missing: it must be {hint}."
    if kind == "missing":
        return f"{name} is missing: set it in the environment or in {SECRETS_DIRECTORY}/{name.lower()}."
    text = message.removeprefix("Value error, ")
    # What is wrong with such a value is the end of a sentence.
    return f"{name}{'' if hint else ':'} {text}" if name else text
