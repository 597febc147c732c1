"""What crosses the wire of auth_service."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

# What a browser's email field accepts and any mail server can be told, so no quotes, no Unicode.
Email = Annotated[
    str,
    Field(
        max_length=254,
        pattern=rf"^{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+$",
        examples=["ada@example.com"],
    ),
    AfterValidator(str.lower),
]
# No control characters: names are shown in mails and pages.
Name = Annotated[str, Field(max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$", examples=["Ada Lovelace"])]
NewPassword = Annotated[str, Field(min_length=12, max_length=128)]
Password = Annotated[str, Field(max_length=128)]
LinkToken = Annotated[str, Field(min_length=1, max_length=128)]


class _Body(BaseModel):
    # A misspelt field is refused instead of ignored.
    model_config = ConfigDict(extra="forbid")


class Registration(_Body):
    email: Email
    password: NewPassword
    name: Name = ""


class Registered(BaseModel):
    """The same whether the address has an account or not: the mail says what is next."""

    status: Literal["accepted"] = "accepted"
    email: str


class VerificationToken(_Body):
    token: LinkToken
    # Of the registration that the link was sent for. Refused with a sentence where it is missing.
    password: Password | None = None


class Verified(BaseModel):
    email: str
    verified: bool


class MailRequest(_Body):
    email: Email


class Accepted(BaseModel):
    status: Literal["accepted"] = "accepted"


class Credentials(_Body):
    email: Email
    password: Password


class PasswordReset(_Body):
    token: LinkToken
    password: NewPassword


class PasswordChange(_Body):
    current: Password
    new: NewPassword


class AccessToken(BaseModel):
    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  # the name of a scheme
    expires_in: int


class Me(BaseModel):
    id: str
    email: str
    verified: bool
