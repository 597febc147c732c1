import base64
import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from shared import keys
from shared.tokens import Claims, Signer, TokenInvalid, Verifier, key_id

SERVICES = Path(__file__).parents[2]
HTTP_SERVICES = [path.parent.name for path in sorted(SERVICES.glob("*/routes.py"))]
OLD, NEW = keys.new_private_key(), keys.new_private_key()
OLD_PUBLIC, NEW_PUBLIC = keys.public_key(OLD), keys.public_key(NEW)
ADA = Claims(sub="1", email="ada@example.com", sid="s", name="Ada")
PAYLOAD = {"iss": "berth", "aud": "berth", "sub": "1", "email": "e", "sid": "s", "exp": 9999999999}
HEADER = {"alg": "ES256", "kid": key_id(NEW_PUBLIC), "typ": "JWT"}
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def token(header: dict[str, Any], payload: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """Write a token as an attacker does: without the library that is to be trapped."""
    body = f"{part(json.dumps(header).encode())}.{part(json.dumps(payload).encode())}"
    return f"{body}.{part(sign(body.encode()))}"


def raw(signature: bytes, size: int = 32, *, larger: bool = False) -> bytes:
    r, s = decode_dss_signature(signature)
    if size == 32:
        s = max(s, ORDER - s) if larger else min(s, ORDER - s)
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def by(private_key: str) -> Callable[[bytes], bytes]:
    return lambda body: raw(keys.load_private_key(private_key).sign(body, ec.ECDSA(hashes.SHA256())))


def by_hmac(key: bytes) -> Callable[[bytes], bytes]:
    def sign(body: bytes) -> bytes:
        mac = hmac.HMAC(key, hashes.SHA256())
        mac.update(body)
        return mac.finalize()

    return sign


def by_p384(body: bytes) -> bytes:
    return raw(ec.generate_private_key(ec.SECP384R1()).sign(body, ec.ECDSA(hashes.SHA256())), 48)


def by_rsa(body: bytes) -> bytes:
    return rsa.generate_private_key(65537, 2048).sign(body, padding.PKCS1v15(), hashes.SHA256())


def public(encoding: serialization.Encoding) -> bytes:
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return keys.load_public_key(NEW_PUBLIC).public_bytes(encoding, spki)


def refuse(forged: str) -> None:
    with pytest.raises(TokenInvalid):
        Verifier([NEW_PUBLIC]).verify(forged)
    with pytest.raises(TokenInvalid):
        Signer(NEW, [NEW_PUBLIC]).verify(forged)


def test_who_signed_in_is_who_is_read() -> None:
    assert Verifier([NEW_PUBLIC]).verify(Signer(NEW, [NEW_PUBLIC]).sign(ADA, 60)) == ADA


def test_a_token_of_another_library_is_read() -> None:
    assert Verifier([NEW_PUBLIC]).verify(token(HEADER, PAYLOAD, by(NEW))) == Claims("1", "e", "s")


def test_rotating_the_key_logs_nobody_out() -> None:
    before = Signer(OLD, [OLD_PUBLIC]).sign(ADA, 60)
    after = Signer(NEW, [NEW_PUBLIC, OLD_PUBLIC]).sign(ADA, 60)
    assert Verifier([NEW_PUBLIC, OLD_PUBLIC]).verify(before) == ADA
    assert Verifier([NEW_PUBLIC, OLD_PUBLIC]).verify(after) == ADA
    refuse(before)


def test_a_token_runs_out() -> None:
    refuse(Signer(NEW, [NEW_PUBLIC]).sign(ADA, -1))


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "other"},
        {"aud": None},
        {"iss": "other"},
        {"iss": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 1},
        {"nbf": 9999999999},
        {"sub": None},
        {"sub": 1},
        {"email": None},
        {"sid": None},
    ],
)
def test_a_token_for_somebody_else_is_refused(change: dict[str, Any]) -> None:
    payload = {name: value for name, value in (PAYLOAD | change).items() if value is not None}
    refuse(token(HEADER, payload, by(NEW)))


def test_an_unsigned_token_is_refused() -> None:
    header, payload, signature = Signer(NEW, [NEW_PUBLIC]).sign(ADA, 60).split(".")
    refuse(f"{header}.{payload}.")
    refuse(f"{header}.{payload}")
    for algorithm in ("none", "None", "NONE", "", None):
        refuse(token(HEADER | {"alg": algorithm}, PAYLOAD, lambda _: b""))
        refuse(token(HEADER | {"alg": algorithm}, PAYLOAD, by(NEW)))
    refuse(f"{header}.{part(json.dumps(PAYLOAD | {'sub': '2'}).encode())}.{signature}")


@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
@pytest.mark.parametrize(
    "key",
    [
        NEW_PUBLIC.encode(),
        base64.b64decode(NEW_PUBLIC),
        public(serialization.Encoding.PEM),
        public(serialization.Encoding.PEM).strip(),
        key_id(NEW_PUBLIC).encode(),
        b"",
    ],
    ids=["as in the settings", "DER", "PEM", "PEM without its last line break", "kid", "empty"],
)
def test_the_public_key_is_no_shared_secret(key: bytes, algorithm: str) -> None:
    refuse(token(HEADER | {"alg": algorithm}, PAYLOAD, by_hmac(key)))


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256", "PS256", "HS512", "dir", "A256KW", "es256", 256, []])
@pytest.mark.parametrize("sign", [by(OLD), by_p384, by_rsa, by_hmac(b"x" * 32)], ids=["P-256", "P-384", "RSA", "HMAC"])
def test_another_algorithm_curve_or_key_is_refused(algorithm: Any, sign: Callable[[bytes], bytes]) -> None:
    refuse(token(HEADER | {"alg": algorithm}, PAYLOAD, sign))


def test_a_right_signature_under_another_algorithm_is_refused() -> None:
    for algorithm in ("ES384", "ES512", "RS256", "HS256"):
        refuse(token(HEADER | {"alg": algorithm}, PAYLOAD, by(NEW)))


@pytest.mark.parametrize("private_key", [OLD, NEW], ids=["another key", "the right key"])
@pytest.mark.parametrize(
    "more",
    [
        {"jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}},
        {"jku": "https://attacker.test/keys"},
        {"x5u": "https://attacker.test/certificate"},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"]},
        {"b64": False},
        {"zip": "DEF"},
        {"": ""},
    ],
)
def test_a_token_that_brings_its_own_key_is_refused(more: dict[str, Any], private_key: str) -> None:
    refuse(token(HEADER | more, PAYLOAD, by(private_key)))


@pytest.mark.parametrize("kid", ["", None, 0, [], {}, "../../dev/null", "'; --"])
def test_a_key_that_is_not_in_the_ring_is_refused(kid: Any) -> None:
    for each in (kid, key_id(OLD_PUBLIC), key_id(NEW_PUBLIC)[:-1]):
        refuse(token(HEADER | {"kid": each}, PAYLOAD, by(NEW)))


def test_a_token_that_names_no_key_is_refused() -> None:
    refuse(token({"alg": "ES256", "typ": "JWT"}, PAYLOAD, by(NEW)))


def test_nobody_makes_a_second_token_of_one() -> None:
    for _ in range(20):
        good = Signer(NEW, [NEW_PUBLIC]).sign(ADA, 60)
        assert Verifier([NEW_PUBLIC]).verify(good) == ADA
    header, payload, signature = good.split(".")
    both = base64.urlsafe_b64decode(signature + "==")
    other = both[:32] + (ORDER - int.from_bytes(both[32:], "big")).to_bytes(32, "big")
    # It is a right signature all the same.
    keys.load_public_key(NEW_PUBLIC).verify(
        encode_dss_signature(int.from_bytes(other[:32], "big"), int.from_bytes(other[32:], "big")),
        f"{header}.{payload}".encode(),
        ec.ECDSA(hashes.SHA256()),
    )
    refuse(f"{header}.{payload}.{part(other)}")
    # The same bytes, written otherwise: padding, blanks, what decoders skip, and bits that nobody reads.
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    unread = signature[:-1] + last[last.index(signature[-1]) + 1]
    for written in (f"{signature}==", f"{signature}\n", f" {signature}", f"{signature[:9]}!{signature[9:]}", unread):
        refuse(f"{header}.{payload}.{written}")
    for whole in (f"{header}=.{payload}.{signature}", f"{good}.", f".{good}", f"{good}.{signature}", good + "\x00"):
        refuse(whole)


@pytest.mark.parametrize(
    ("r", "s"), [(0, 0), (0, 1), (1, 0), (1, 1), (ORDER, 1), (1, ORDER), (2**256 - 1, 1), (ORDER - 1, 1)]
)
def test_a_signature_outside_the_curves_range_is_refused(r: int, s: int) -> None:
    refuse(token(HEADER, PAYLOAD, lambda _: r.to_bytes(32, "big") + s.to_bytes(32, "big")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "eyJhbGciOiJub25lIn0.e30.",
        "\u00ff",
        "\ud800",
        "x" * 100_000,
        f"{part(b'[' * 700)}.e30.{'A' * 86}",
        f"{part(b'{' * 700)}.e30.{'A' * 86}",
        f"{part(b'null')}.e30.{'A' * 86}",
        f"{part(b'9' * 700)}.e30.{'A' * 86}",
        f"{part(json.dumps(HEADER).encode())}.{part(b'[]')}.{'A' * 86}",
        f"{part(bytes([255, 254]))}.e30.{'A' * 86}",
    ],
)
def test_what_is_no_token_is_refused_and_breaks_nothing(text: str) -> None:
    refuse(text)


@pytest.mark.parametrize("payload", [b"[]", b"null", b"9", b"{", b"\xff", b'{"exp": 1e400}', b"[" * 4000])
def test_a_signed_payload_that_is_no_claims_is_refused(payload: bytes) -> None:
    body = f"{part(json.dumps(HEADER).encode())}.{part(payload)}"
    refuse(f"{body}.{part(by(NEW)(body.encode()))}")


def test_a_key_is_named_alike_by_whoever_signs_and_verifies_and_not_given_away() -> None:
    assert key_id(NEW_PUBLIC) != key_id(OLD_PUBLIC)
    assert key_id(NEW_PUBLIC) == hashlib.sha256(b"berth-kid:" + base64.b64decode(NEW_PUBLIC)).hexdigest()[:12]


def test_python_jose_uses_cryptography_and_its_own_arithmetic_is_never_loaded() -> None:
    program = (
        "import sys\n"
        "for name in ('ecdsa', 'rsa', 'pyasn1'):\n"
        "    sys.modules[name] = None\n"  # As in the images: an import of it fails.
        f"import {', '.join(f'{name}.main' for name in HTTP_SERVICES)}\n"
        "from jose.backends import ECKey\n"
        "from shared import keys, tokens\n"
        "private = keys.new_private_key()\n"
        "signer = tokens.Signer(private, [keys.public_key(private)])\n"
        "print(signer.verify(signer.sign(tokens.Claims('1', 'e', 's'), 60)).sub, ECKey.__module__)\n"
        "print([name for name, found in sys.modules.items() if found and 'ecdsa' in name])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1 jose.backends.cryptography_backend\n[]\n"


@pytest.mark.parametrize("service", HTTP_SERVICES)
def test_no_image_installs_python_joses_own_arithmetic(service: str) -> None:
    folder = SERVICES / service
    locked = set(re.findall(r"^([a-z0-9-]+)==", (folder / "requirements.txt").read_text(), re.MULTILINE))
    assert {"python-jose", "cryptography"} <= locked
    assert not {"ecdsa", "rsa", "pyasn1"} & locked
    # Else pip would ask for what python-jose names.
    assert " --no-deps " in (folder / "Dockerfile").read_text()


def test_verifying_reads_no_key() -> None:
    """A bound far above what it takes (about 0.1 ms), and below what reading a key each time adds."""
    verifier, good = Verifier([NEW_PUBLIC]), Signer(NEW, [NEW_PUBLIC]).sign(ADA, 60)
    began = time.process_time()
    for _ in range(200):
        verifier.verify(good)
    assert (time.process_time() - began) / 200 < 0.002
