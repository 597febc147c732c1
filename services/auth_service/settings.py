"""What auth_service is told."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from shared import keys
from shared.settings import SigningKey, split_list
from shared.token_settings import PrivateKey, TokenSettings

Networks = Annotated[list[IPv4Network | IPv6Network], NoDecode, BeforeValidator(split_list)]


class AuthSettings(TokenSettings):
    # Signs access tokens. No other service has it.
    jwt_private_key: PrivateKey
    # Refresh tokens are computed and marked with it. No other service has it either.
    jwt_secret_key: SigningKey
    # Those before it: a refresh that was answered under one can be repeated. Comma separated, newest first.
    jwt_previous_secret_keys: Annotated[list[SecretStr], NoDecode, BeforeValidator(split_list)] = Field(
        default_factory=list
    )
    # Short, since an access token is checked without asking us.
    access_token_seconds: int = 900
    # Counted from the last refresh, so that who comes back within a month stays signed in.
    refresh_token_seconds: int = 30 * 86400
    verification_seconds: int = 86400
    # Wrong passwords for one link; then it is dead.
    verification_guesses: int = 10
    # Whoever asked is at the mailbox now.
    reset_seconds: int = 3600
    # An address that nobody verified is free again after this, and not kept longer than it is of use.
    unverified_days: int = 7
    # Two tabs may refresh at once; beyond this the older token counts as stolen.
    refresh_grace_seconds: int = 10
    # Of one account from one network.
    sign_in_failures: int = 10
    sign_in_window_seconds: int = 900
    # From one network over all accounts. A thousand people behind one address, of whom one in ten mistypes once in a
    # quarter of an hour, stay below it; and who has signed in from there before is let through beyond it.
    sign_in_failures_per_network: int = 100
    # Of one account over all networks; beyond it networks that are new to it have to wait, and its owner is told.
    sign_in_failures_per_account: int = 20
    # The longest wait; beyond so many failures in a row it is sign_in_window_seconds (NIST SP 800-63B 5.2.2).
    sign_in_wait_seconds: int = 60
    sign_in_failures_in_a_row: int = 100
    known_network_days: int = 90
    # A school class signs up in an hour; a program that makes accounts needs more.
    sign_ups_per_network: int = 60
    # Each sends a mail.
    password_changes_a_day: int = 10
    # To one mailbox, whoever asks for it: one mail a minute, and a few a day. Nobody loses more than five.
    mail_pause_seconds: int = 60
    mails_per_address: int = 5
    # An hour: a network's share is small, so that it takes fifteen of them to use up the site's.
    mails_per_network: int = 20
    # An hour: what most mail providers let a new sender send without harm to its reputation.
    mails_per_hour: int = 300
    # Proxies before the edge whose word about the visitor's address counts. Comma separated.
    trusted_proxies: Networks = Field(default_factory=list)

    @property
    def successor_keys(self) -> list[str]:
        """What refresh tokens are computed and marked with, the current key first."""
        return [key.get_secret_value() for key in (self.jwt_secret_key, *self.jwt_previous_secret_keys)]

    @model_validator(mode="after")
    def _what_is_signed_can_be_verified(self) -> Self:
        if keys.public_key(self.jwt_private_key.get_secret_value()) not in self.jwt_public_keys:
            raise ValueError(
                "JWT_PUBLIC_KEYS does not hold the public key of JWT_PRIVATE_KEY: put it first in the list."
            )
        return self

    @property
    def origin(self) -> str:
        """What a browser calls the site in the header Origin."""
        parts = urlsplit(self.public_url.lower())
        default = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
        return f"{parts.scheme}://{parts.netloc.removesuffix(default)}"
