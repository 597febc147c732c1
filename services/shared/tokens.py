"""Access tokens and the key ring that signs them. The only module that knows the JWT library."""

import hashlib
import time
import uuid
from dataclasses import dataclass

from jose import jwt
from jose.exceptions import JOSEError

from shared.errors import Unauthenticated
from shared.settings import TokenSettings

ALGORITHM = "HS256"
ISSUER = "berth"
AUDIENCE = "berth"


class TokenInvalid(Unauthenticated):
    code = "token_invalid"


class SessionRevoked(Unauthenticated):
    code = "session_revoked"


@dataclass(frozen=True, slots=True)
class Claims:
    """Who is asking, and in which session."""

    sub: str
    email: str
    sid: str
    name: str = ""


def key_id(key: str) -> str:
    """Name a key without giving it away."""
    return hashlib.sha256(b"berth-kid:" + key.encode()).hexdigest()[:12]


class KeyRing:
    """Signs with the current key; verifies with that one and those before it."""

    def __init__(self, current: str, previous: list[str]) -> None:
        self._current_id = key_id(current)
        # Newest first, so the successor of a refresh token is looked for under the current key first.
        self._keys = {key_id(key): key for key in [current, *previous]}

    @classmethod
    def from_settings(cls, settings: TokenSettings) -> "KeyRing":
        return cls(
            settings.jwt_secret_key.get_secret_value(),
            [key.get_secret_value() for key in settings.jwt_previous_secret_keys],
        )

    @property
    def keys(self) -> list[str]:
        """Every key, the current one first."""
        return list(self._keys.values())

    def sign(self, claims: Claims, seconds: int) -> str:
        """Make an access token that lasts this long."""
        now = int(time.time())
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": claims.sub,
            "email": claims.email,
            "sid": claims.sid,
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + seconds,
        }
        if claims.name:
            payload["name"] = claims.name
        token: str = jwt.encode(payload, self.keys[0], ALGORITHM, headers={"kid": self._current_id})
        return token

    def verify(self, token: str) -> Claims:
        """Tell who a token speaks for, or refuse it."""
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            payload = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require_exp": True, "require_sub": True},
            )
            return Claims(payload["sub"], payload["email"], payload["sid"], payload.get("name", ""))
        # A token is the caller's text: whatever it makes the library trip over, the token is at fault.
        except (JOSEError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
            raise TokenInvalid("The access token is not valid or has run out.") from None


def revocation_key(sid: str) -> str:
    """The Redis key whose presence says that a session has ended before its access tokens did."""
    return f"revoked:{sid}"
