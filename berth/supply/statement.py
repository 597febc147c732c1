"""Signed statements about images: in-toto statements in DSSE envelopes, signed with ECDSA P-256 and SHA-256.

`cosign verify-blob-attestation --key` reads them, too. The host verifies with openssl, which each system has.
Formats: https://github.com/secure-systems-lab/dsse (envelope), https://in-toto.io/Statement/v1, https://slsa.dev/provenance/v1.
"""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth.host import commands
from berth.host.refused import Refused
from berth.supply.identity import ALGORITHM

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"


@dataclass(frozen=True)
class Statement:
    """What somebody with one of the keys says: image -> identity."""

    images: dict[str, str]

    @classmethod
    def read(cls, text: str, keys: Iterable[str], whose: str) -> Statement:
        """Return the statement in an envelope.

        Args:
            text: The envelope, JSON.
            keys: Public keys (PEM), one of which has to have signed it.
            whose: What it is about, for messages.

        Raises:
            Refused: it is damaged, or none of the keys has signed it.
        """
        try:
            envelope = json.loads(text)
            payload = base64.b64decode(envelope["payload"], validate=True)
            signatures = [base64.b64decode(one["sig"], validate=True) for one in envelope["signatures"]]
            kind = str(envelope["payloadType"])
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise Refused(f"The statement on {whose} is damaged ({type(error).__name__}: {error}).") from error
        signed = pre_authentication_encoding(kind, payload)
        if not any(is_signed(signed, signature, key) for signature in signatures for key in keys):
            raise Refused(
                f"The statement on {whose} is signed by none of the keys in berth_signing_keys, or was changed since."
            )
        try:
            return cls(_images(json.loads(payload), kind))
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"The statement on {whose} is signed, but no in-toto statement: {error}.") from error


def _images(statement: dict[str, Any], kind: str) -> dict[str, str]:
    if (kind, statement["_type"]) != (PAYLOAD_TYPE, STATEMENT):
        raise ValueError(f"it is {kind}, {statement['_type']}")
    subjects = [(str(one["name"]), one["digest"].get(ALGORITHM, "")) for one in statement["subject"]]
    if len({name for name, _ in subjects}) != len(subjects):
        raise ValueError("it names an image twice")
    return {name: str(known) for name, known in subjects if known}


def pre_authentication_encoding(kind: str, payload: bytes) -> bytes:
    """Return the bytes that are signed, so that no payload can be taken for one of another type (DSSE, PAE)."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def is_signed(signed: bytes, signature: bytes, key: str) -> bool:
    """Tell whether this key (PEM, public) signed these bytes. Raises Refused where openssl cannot read the key."""
    with tempfile.TemporaryDirectory(prefix="berth-signature-") as folder:
        public, seal = Path(folder, "key.pem"), Path(folder, "signature")
        public.write_text(key.strip() + "\n")
        seal.write_bytes(signature)
        known = commands.run_bytes("openssl", "pkey", "-pubin", "-in", str(public), "-noout")
        if known.returncode:
            raise Refused(f"berth_signing_keys: openssl reads no public key there: {known.stderr.decode().strip()}")
        verify = ("openssl", "dgst", "-sha256", "-verify", str(public), "-signature", str(seal))
        return commands.run_bytes(*verify, given=signed).returncode == 0


def require(images: dict[str, str], statements: Iterable[Statement], excused: Iterable[str] = ()) -> None:
    """Refuse images that no statement names, or names with another content.

    Args:
        images: Name -> identity, of what is to be loaded or started.
        statements: Verified ones.
        excused: Names that are held to a digest already.
    """
    stated: dict[str, set[str]] = {}
    for statement in statements:
        for name, known in statement.images.items():
            stated.setdefault(name, set()).add(known)
    wrong = []
    for name, known in sorted(images.items()):
        if name in stated and known not in stated[name]:
            wrong.append(f"{name} is not the image that was signed")
        elif name not in stated and name not in excused:
            wrong.append(f"{name} is named by no signed statement")
    if wrong:
        raise Refused(
            f"{'; '.join(wrong)}. Nothing was started. Build and sign it: python3 images/build.py app --sign <env>. "
            "In an emergency: -e release_unsigned='<reason>', which is logged and raises an alert."
        )
