"""The keys of access tokens, in the one form that a line of .env holds: base64 of DER.

Services ask when they start, Ansible before it changes anything. Each rule returns what is wrong as the end of a
sentence that begins with a variable's name, or nothing where all is well, and never repeats a value. An empty value
breaks no rule. Standard library and `cryptography` only, which Ansible brings: it loads this file by its path.
"""

import base64
import binascii
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

MAKE_PRIVATE_KEY = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -outform DER | openssl base64 -A"
# From the private key on standard input, as the command above writes it.
MAKE_PUBLIC_KEY = "openssl base64 -d -A | openssl pkey -inform DER -pubout -outform DER | openssl base64 -A"
PRIVATE_KEY_HINT = (
    f"an EC private key on the curve P-256, DER in base64 on one line; make one with `{MAKE_PRIVATE_KEY}`"
)
PUBLIC_KEY_HINT = "EC public keys on the curve P-256, each DER in base64, with commas between and the current one first"


def new_private_key() -> str:
    """Make a key that signs."""
    der, pkcs8 = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
    made = ec.generate_private_key(ec.SECP256R1())
    return base64.b64encode(made.private_bytes(der, pkcs8, serialization.NoEncryption())).decode()


def public_key(private_key: str) -> str:
    """Return the public key that verifies what a private key has signed."""
    return text_of(load_private_key(private_key).public_key())


def load_private_key(value: str) -> ec.EllipticCurvePrivateKey:
    """Read a private key, or raise ValueError with what is wrong."""
    found = _loaded(value)
    if isinstance(found, ec.EllipticCurvePrivateKey) and isinstance(found.curve, ec.SECP256R1):
        return found
    raise ValueError(f"{_fault(value, found)}: it must be {PRIVATE_KEY_HINT}")


def load_public_key(value: str) -> ec.EllipticCurvePublicKey:
    """Read one public key, or raise ValueError with what is wrong."""
    found = _loaded(value)
    if isinstance(found, ec.EllipticCurvePublicKey) and isinstance(found.curve, ec.SECP256R1):
        return found
    raise ValueError(f"{_fault(value, found)}: it must be {PUBLIC_KEY_HINT}")


def split(value: str) -> list[str]:
    """Read "a,b" as two keys."""
    return [part.strip() for part in value.split(",") if part.strip()]


def private_key_problem(value: str) -> str:
    """Say why a value is no private key."""
    return _problem(load_private_key, [value] if value else [])


def public_keys_problem(value: str) -> str:
    """Say why a value is no list of public keys."""
    return _problem(load_public_key, split(value))


def _problem(load: Any, values: list[str]) -> str:
    try:
        for value in values:
            load(value)
    except ValueError as error:
        return str(error)
    return ""


def _loaded(value: str) -> Any:
    """Read a key of any kind; None where there is none."""
    try:
        der = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    for load in (serialization.load_der_public_key, lambda der: serialization.load_der_private_key(der, None)):
        try:
            return load(der)
        # TypeError: it is encrypted.
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
    return None


def _fault(value: str, found: Any) -> str:
    if found is None:
        return "is PEM" if "-----" in value else "is no key"
    kind = "private" if hasattr(found, "private_bytes") else "public"
    curve = getattr(found, "curve", None)
    if isinstance(curve, ec.SECP256R1):
        return f"holds a {kind} key"
    return f"holds a {kind} key of another kind ({curve.name if curve else type(found).__name__.strip('_')})"


def text_of(key: ec.EllipticCurvePublicKey) -> str:
    """Write a public key, always in the same way."""
    der, spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(key.public_bytes(der, spki)).decode()
