"""Signed statements and SBOMs of the images that build.py made.

A statement is an in-toto statement with a SLSA provenance (https://slsa.dev/provenance/v1) in a DSSE envelope, signed
with ECDSA P-256, as cosign's key pairs are. Hosts with the public key (berth_signing_keys) start nothing else.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PROJECT = Path(__file__).resolve().parent.parent
if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))

from berth import __version__  # noqa: E402  # needs the path
from berth.host import commands  # noqa: E402
from berth.host.refused import Refused  # noqa: E402
from berth.supply import sbom  # noqa: E402
from berth.supply.identity import ALGORITHM, identity  # noqa: E402
from berth.supply.statement import PAYLOAD_TYPE, STATEMENT, pre_authentication_encoding  # noqa: E402

FOLDER = PROJECT / ".cache" / "attestations"
Key = ec.EllipticCurvePrivateKey
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:berth:images/build.py:v1"
KEY_VARIABLE = "SIGNING_KEY"
VAULT_VARIABLE = "vault_signing_key"


class AttestError(Exception):
    """Nothing can be signed or read; the message says why."""


def private_key(environment: str, root: Path = PROJECT) -> Key:
    """Return the key of an environment: that of $SIGNING_KEY, or else `vault_signing_key` of its vault.

    Raises:
        AttestError: there is none, it is no P-256 key, or the environment does not list its public key.
    """
    text = os.environ.get(KEY_VARIABLE, "") or _vault_key(environment, root)
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AttestError(
            f"{KEY_VARIABLE} or {VAULT_VARIABLE} is no private key (PEM, not encrypted): {error}"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise AttestError(f"{KEY_VARIABLE} or {VAULT_VARIABLE} must be an ECDSA key on the curve P-256.")
    own = public_key(key)
    listed = [one.strip() for one in _variables(environment, root, "main.yml").get("berth_signing_keys") or ()]
    if own not in listed:
        raise AttestError(
            f"inventories/{environment}: berth_signing_keys does not list this key, so its hosts would refuse what it "
            f"signs. Add to group_vars/all/main.yml:\nberth_signing_keys:\n  - |\n{_indented(own)}"
        )
    return key


def public_key(key: Key) -> str:
    """Return the public key as PEM, without the last line break."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode().strip()


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _variables(environment: str, root: Path, file: str) -> dict[str, Any]:
    place = root / "inventories" / environment / "group_vars" / "all" / file
    try:
        return yaml.safe_load(place.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise AttestError(f"--sign {environment}: {place.relative_to(root)}: {error}") from error


def _vault_key(environment: str, root: Path) -> str:
    """Read the key as a playbook would: from the environment's vault file, or from its secret manager."""
    inventory = root / "inventories" / environment
    if not inventory.is_dir():
        missing = inventory.relative_to(root)
        raise AttestError(f"--sign {environment}: {missing} does not exist, and {KEY_VARIABLE} is not set.")
    program = Path(sys.executable).with_name("ansible-inventory")
    environ = {**os.environ, "ANSIBLE_CONFIG": str(root / "ansible.cfg")}
    # Its prompt and its messages are for the person at the terminal.
    listed = [str(program), "-i", str(inventory), "--list"]
    done = subprocess.run(listed, stdout=subprocess.PIPE, text=True, check=False, env=environ, cwd=root)
    if done.returncode:
        raise AttestError(f"--sign {environment}: its secrets cannot be read, as it says above.")
    hosts = json.loads(done.stdout)["_meta"]["hostvars"].values()
    key = next((one[VAULT_VARIABLE] for one in hosts if one.get(VAULT_VARIABLE)), "")
    # How Ansible marks text that it never evaluates.
    key = key.get("__ansible_unsafe", "") if isinstance(key, dict) else key
    if not key:
        raise AttestError(
            f"--sign {environment}: its secrets have no {VAULT_VARIABLE}. To make one: ansible-playbook "
            f"ansible/new_environment.yml -e env={environment}"
        )
    return str(key)


def statement(images: dict[str, dict[str, Any]], parameters: dict[str, Any], bases: dict[str, str]) -> dict[str, Any]:
    """Return the in-toto statement about images.

    Args:
        images: Name -> what `docker image inspect` says.
        parameters: What was asked of the build: release, mode, platform.
        bases: Name -> id of the images that they were built on.
    """
    subjects = [
        {"name": name, "digest": {"sha256": image["Id"].removeprefix("sha256:"), ALGORITHM: identity(image)}}
        for name, image in sorted(images.items())
    ]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "internalParameters": {},
                "resolvedDependencies": [
                    *_source(PROJECT),
                    *(
                        {"name": name, "digest": {"sha256": known.removeprefix("sha256:")}}
                        for name, known in sorted(bases.items())
                    ),
                ],
            },
            "runDetails": {
                "builder": {"id": _builder(), "version": {"berth": __version__}},
                "metadata": {"invocationId": f"urn:uuid:{uuid.uuid4()}", "finishedOn": now},
            },
        },
    }


def _builder() -> str:
    """Name who built: the job of a pipeline where it says so, or somebody's own machine."""
    if url := os.environ.get("CI_JOB_URL", ""):
        return url
    server, repository, run = (os.environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else "urn:berth:own-machine"


def _source(root: Path) -> list[dict[str, Any]]:
    """Return the commit that was built; nothing where there is none, or where files differ from it."""
    commit = commands.run("git", "-c", "safe.directory=*", "-C", str(root), "rev-parse", "HEAD")
    if commit.returncode:
        return []
    changed = commands.run("git", "-c", "safe.directory=*", "-C", str(root), "status", "--porcelain").stdout.strip()
    return [{"name": "source", "digest": {"gitCommit": commit.stdout.strip()}, "annotations": {"clean": not changed}}]


def envelope(said: dict[str, Any], key: Key) -> str:
    """Return the signed statement, one line of JSON."""
    payload = json.dumps(said, sort_keys=True).encode()
    signature = key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256()))
    encoded = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE}
    return json.dumps({**encoded, "signatures": [{"sig": base64.b64encode(signature).decode()}]}) + "\n"


def write_statement(
    whose: str,
    images: dict[str, dict[str, Any]],
    parameters: dict[str, Any],
    bases: dict[str, str],
    key: Key,
    folder: Path = FOLDER,
) -> Path:
    """Sign a statement about images and write it to <folder>/<whose>.intoto.jsonl. Return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{whose}.intoto.jsonl"
    draft = place.with_suffix(".new")
    draft.write_text(envelope(statement(images, parameters, bases), key), encoding="utf-8")
    draft.replace(place)
    return place


def write_sboms(images: dict[str, dict[str, Any]], folder: Path) -> list[Path]:
    """Write an SBOM for each image to <folder>/<image>.cdx.json. Return the files.

    Raises:
        AttestError: Docker cannot export an image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = []
    for name, image in images.items():
        place = folder / f"{name.rpartition(':')[0].rpartition('/')[2]}{sbom.SUFFIX}"
        try:
            place.write_text(json.dumps(sbom.document(name, image), indent=1) + "\n", encoding="utf-8")
        except Refused as refused:
            raise AttestError(refused.reason) from refused
        places.append(place)
    return places
