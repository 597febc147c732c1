"""Filters of ansible/new_environment.yml: check the answers, and write them into the example inventory."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import string
import sys
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from berth.host.refused import Refused  # found there
from berth.stack import needs as stack_needs

ROOT = Path(__file__).resolve().parents[3]

ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# sshd_config(5), PubkeyAcceptedAlgorithms; sshd itself refuses RSA keys of less than 2048 bits.
KEY = re.compile(
    r"(?P<type>ssh-ed25519|ssh-rsa|ecdsa-sha2-\S+|sk-\S+) (?P<body>[A-Za-z0-9+/]+=*)( (?P<comment>[^\"\\]*))?"
)


def _shared(name: str) -> ModuleType:
    """Load the validation rules of preflight and services, so that an answer accepted here is accepted there."""
    spec = util.spec_from_file_location(f"berth_{name}", ROOT / "services" / "shared" / f"{name}.py")
    assert spec  # noqa: S101  # an existing file has a spec
    assert spec.loader  # noqa: S101
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RULES = _shared("rules")
KEYS = _shared("keys")


def public_key(given: str) -> str:
    """Return an SSH public key from its file or its text.

    Args:
        given: the key itself, or the path of its file.

    Raises:
        AnsibleFilterError: it is neither a readable file nor a public key; the message says what to write.
    """
    text = given.strip()
    if not KEY.fullmatch(text):
        path = Path(text).expanduser()
        try:
            text = path.read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise AnsibleFilterError(
                f"key is {text!r}, which is neither a public key nor a readable file. Give the path of your key "
                "(ls ~/.ssh/*.pub), or generate one: ssh-keygen -t ed25519"
            ) from None
        if "PRIVATE KEY" in text:
            raise AnsibleFilterError(f"{path} is a private key, which must not leave this machine: give {path}.pub")
    found = KEY.fullmatch(text)
    try:
        # RFC 4253, 6.6: the body begins with the length and name of the type.
        named = base64.b64decode(found["body"], validate=True)[4:].decode("latin-1") if found else ""
    except binascii.Error:
        named = ""
    if not found or not named.startswith(found["type"]):
        raise AnsibleFilterError("key is no SSH public key: one line such as `ssh-ed25519 AAAA... ada@laptop`")
    return text


def own_key(home: str) -> str:
    """Return the path of a default public key of ssh (ssh(1), -i), Ed25519 first; empty without one."""
    names = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
    found = [Path(home, ".ssh", f"{name}.pub") for name in reversed(names)]
    return next((str(path) for path in found if path.is_file()), "")


def account_of(key: str) -> str:
    """Return the administrator's account name: the user in the key's comment, or admin."""
    found = KEY.fullmatch(key)
    name = ((found["comment"] if found else None) or "").partition("@")[0].lower()
    return name if ACCOUNT.fullmatch(name) and name != "root" else "admin"


def problems(answers: dict[str, str]) -> list[str]:
    """Return a sentence for each invalid answer; empty answers are not checked.

    Args:
        answers: env, host, domain, mail, smtp and admin, each as text.
    """
    found = []
    host, domain, mail, smtp, admin = (answers.get(name, "") for name in ("host", "domain", "mail", "smtp", "admin"))
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", answers.get("env", "")):
        found.append(f"env is {answers.get('env')!r}: a name in lower case, such as production or staging.")
    elif answers["env"] == "demo":
        found.append("env is demo, which this project uses itself: take another name.")
    several = "holds more than one address: write one" if "," in mail else ""
    for name, value, problem in (
        ("host", host, RULES.host_problem(host)),
        ("domain", domain, RULES.domain_problem(domain)),
        ("mail", mail, several or RULES.recipients_problem(mail)),
        ("smtp", smtp, RULES.host_problem(smtp)),
    ):
        if problem:
            found.append(f"{name} is {value!r}, which {problem}.")
    if admin and (admin == "root" or not ACCOUNT.fullmatch(admin)):
        found.append(f"admin is {admin!r}: an account's name in lower case, and not root.")
    return found


def filled(text: str, answers: dict[str, str]) -> str:
    """Return a file of an inventory with its placeholders (<...>) replaced by the answers.

    Args:
        text: hosts.yml or main.yml; values that are already set are kept.
        answers: env, host, domain, mail, smtp, admin and key; an empty one leaves its placeholder.
    """
    key = answers.get("key", "")
    places = {
        r"^( *ansible_host: )<[^<>]*>": answers.get("host", ""),
        r"^(berth_domain: )<[^<>]*>": answers.get("domain", ""),
        r"^(berth_smtp_host: )<[^<>]*>": answers.get("smtp", ""),
        r"^(berth_operator_mail: )<[^<>]*>": answers.get("mail", ""),
        r'^(berth_mail_from: )"<[^<>]*>"': f"no-reply@{answers['domain']}" if answers.get("domain") else "",
        r'^( *- \{name: )<[^<>]*>, ssh_keys: \["<[^<>]*>"\]': f'{answers["admin"]}, ssh_keys: ["{key}"]' if key else "",
    }
    for place, value in places.items():
        if value:
            text = re.sub(place, lambda found, value=value: found[1] + value, text, flags=re.MULTILINE)  # type: ignore[misc]
    return text


def named(text: str, env: str) -> str:
    """Return the example's text for an environment of another name."""
    text = re.sub(r"^    production:", f"    {env}:", text, flags=re.MULTILINE)
    return text.replace("inventories/production", f"inventories/{env}")


def open_places(text: str) -> list[str]:
    """Return the variables that still have a placeholder."""
    found = re.findall(r"^ *(?:- \{)?(\w+): \"?<[^<>]*>", text, re.MULTILINE)
    return ["berth_admins" if name == "name" else name for name in found]


def _needs(compose: str) -> stack_needs.Needs:
    try:
        return stack_needs.read(yaml.safe_load(compose))
    except (Refused, yaml.YAMLError) as problem:
        raise AnsibleFilterError(str(problem)) from None


def new_secrets(compose: str) -> dict[str, str]:
    """Generate the secrets that a compose file names; those that only the operator knows are empty.

    Returns: variable -> value.
    """
    needs = _needs(compose)
    return {f"vault_{name}": _new_secret(needs.kind(name)) for name in needs.variables}


def given_secrets(compose: str) -> list[str]:
    """Return the variables of secrets that only the operator knows, and that may not be empty."""
    needs = _needs(compose)
    return [f"vault_{name}" for name in needs.variables if needs.kind(name) == "given"]


def _new_secret(kind: str) -> str:
    if kind in ("given", "optional"):
        return ""
    if kind == "p256":
        return str(KEYS.new_private_key())
    if kind == "hex":
        return secrets.token_hex(32)
    # Letters and digits need no escaping; 48 are 285 bits.
    return "".join(
        secrets.choice(string.ascii_letters + string.digits) for _ in range(512 if kind == "keyfile" else 48)
    )


def signing_key(_: str) -> str:
    """Generate a private key for images/build.py --sign: ECDSA on P-256, PEM (PKCS 8)."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key = ec.generate_private_key(ec.SECP256R1())
    text: bytes = key.private_bytes(encoding, form, serialization.NoEncryption())
    return text.decode()


class FilterModule:
    """Loaded by Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {
            "environment_account": account_of,
            "environment_filled": filled,
            "environment_key": public_key,
            "environment_named": named,
            "environment_open": open_places,
            "environment_own_key": own_key,
            "environment_given": given_secrets,
            "environment_secrets": new_secrets,
            "environment_signing_key": signing_key,
            # Role environment has a filter environment_problems.
            "answers_problems": problems,
        }
