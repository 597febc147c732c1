"""Access tokens: who signs them and who verifies them. The only module that knows the JWT library."""

import base64
import hashlib
import re
import time
import uuid
from dataclasses import dataclass
from typing import Any

from jose import jwt

# By its own name: where it cannot be loaded the start fails, instead of going on with python-jose's own arithmetic.
from jose.backends.cryptography_backend import CryptographyECKey
from jose.exceptions import JOSEError

from shared import keys
from shared.errors import Unauthenticated

ALGORITHM = "ES256"
ISSUER = "berth"
AUDIENCE = "berth"

# What a signer writes and no more: neither a key (jwk), nor the address of one (jku, x5u), nor an extension (crit).
_HEADER = {"alg", "kid", "typ"}
# 86 characters are the 64 bytes of r and s. What decodes to the same bytes but is written otherwise is another's work.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,1024}\.[A-Za-z0-9_-]{1,8192}\.([A-Za-z0-9_-]{85}[AQgw])")
# The order of P-256. With (r, s) the pair (r, order - s) is a signature as well: only the one with the smaller s
# counts, so that nobody makes a second token of one.
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


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


class _Key(CryptographyECKey):  # type: ignore[misc]  # the library has no types
    """A key of the library that signs with the smaller s."""

    def sign(self, msg: bytes) -> bytes:
        signature: bytes = super().sign(msg)
        s = int.from_bytes(signature[32:], "big")
        return signature[:32] + min(s, _ORDER - s).to_bytes(32, "big")


class Verifier:
    """Verifies with the current public key and those before it."""

    def __init__(self, public_keys: list[str]) -> None:
        # Made once: reading a key takes longer than verifying with it.
        loaded = [keys.load_public_key(key) for key in public_keys]
        self._keys = {key_id(keys.text_of(key)): _Key(key, ALGORITHM) for key in loaded}

    def verify(self, token: str) -> Claims:
        """Tell who a token speaks for, or refuse it."""
        try:
            key = self._key_of(token)
            payload = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require_aud": True, "require_exp": True, "require_sub": True},
            )
            return Claims(payload["sub"], payload["email"], payload["sid"], payload.get("name", ""))
        # A token is the caller's text: whatever it makes the library trip over, the token is at fault.
        except (JOSEError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
            raise TokenInvalid("The access token is not valid or has run out.") from None

    def _key_of(self, token: str) -> _Key:
        form = _TOKEN.fullmatch(token)
        if form is None:
            raise ValueError("not as a signer writes it")
        if int.from_bytes(base64.urlsafe_b64decode(form[1] + "==")[32:], "big") > _ORDER // 2:
            raise ValueError("the larger s")
        header: dict[str, Any] = jwt.get_unverified_header(token)
        if not header.keys() <= _HEADER:
            raise ValueError("more in the header than a signer writes")
        return self._keys[header["kid"]]


class Signer(Verifier):
    """Signs with the private key, and verifies like everybody else. Of auth_service alone."""

    def __init__(self, private_key: str, public_keys: list[str]) -> None:
        super().__init__(public_keys)
        self._private = _Key(keys.load_private_key(private_key), ALGORITHM)
        self._current_id = key_id(keys.public_key(private_key))

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
        token: str = jwt.encode(payload, self._private, ALGORITHM, headers={"kid": self._current_id})
        return token


def key_id(public_key: str) -> str:
    """Name a key, in the same way wherever it is read."""
    return hashlib.sha256(b"berth-kid:" + base64.b64decode(public_key)).hexdigest()[:12]


def revocation_key(sid: str) -> str:
    """The Redis key whose presence says that a session has ended before its access tokens did."""
    return f"revoked:{sid}"
