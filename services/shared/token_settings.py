"""What services are told that sign or verify access tokens. Apart from settings, which the worker reads, too."""

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from shared import keys
from shared.settings import CommonSettings, keeps, split_list


def keeps_each(rule: Callable[[str], str]) -> AfterValidator:
    """Refuse a list in which a value breaks a rule."""

    def check(values: list[str]) -> list[str]:
        if problem := next(filter(None, map(rule, values)), ""):
            raise ValueError(f"{problem}.")
        return values

    return AfterValidator(check)


PrivateKey = Annotated[SecretStr, Field(description=keys.PRIVATE_KEY_HINT), keeps(keys.private_key_problem)]
PublicKeys = Annotated[
    list[str],
    Field(min_length=1, description=keys.PUBLIC_KEY_HINT),
    NoDecode,
    BeforeValidator(split_list),
    keeps_each(keys.public_keys_problem),
]


class TokenSettings(CommonSettings):
    """What the services that read access tokens are told as well."""

    # The current one first, then those of yesterday: they still verify, so rotating logs nobody out. Comma separated.
    jwt_public_keys: PublicKeys
