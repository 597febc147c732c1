"""Tokens as somebody writes them who holds what a service was given."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Iterator

VICTIM: dict[str, object] = {
    "iss": "berth",
    "aud": "berth",
    "sub": "0",
    "email": "victim@example.com",
    "sid": "forged",
    "jti": "x",
}


def forged(held: Iterable[str]) -> Iterator[str]:
    """Sign for somebody else with each value that is held, in every way that an HMAC could be taken for a signature."""
    for value in [part.strip() for text in held for part in text.split(",")]:
        for key in {value.encode(), _decoded(value)}:
            for algorithm in ("HS256", "ES256", "none"):
                named = hashlib.sha256(b"berth-kid:" + key).hexdigest()[:12]
                body = f"{_part({'alg': algorithm, 'kid': named, 'typ': 'JWT'})}.{_part(VICTIM | _times())}"
                mac = hmac.digest(key, body.encode(), "sha256")
                for signature in (mac, mac + mac, b""):
                    yield f"{body}.{_text(signature)}"


def _times() -> dict[str, object]:
    now = int(time.time())
    return {"iat": now, "exp": now + 600}


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return value.encode()


def _part(content: dict[str, object]) -> str:
    return _text(json.dumps(content, separators=(",", ":"), sort_keys=True).encode())


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
