"""Filters of ansible/rotate.yml: which values change, in which order, and how the vault file reads afterwards."""

from __future__ import annotations

import base64
import re
import secrets
import string
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import util
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from berth.secrets import ADMINS
from berth.stack import needs as stack_needs  # found there
from berth.stack.needs import MONGO, REDIS, Needs, password_of

ROOT = Path(__file__).resolve().parents[3]
# Classes of secrets, besides the name of a single one.
CLASSES = {
    "databases": "the passwords of the services' accounts in MongoDB and Redis",
    "database_admins": "MongoDB's root and Redis' admin",
    "token_keys": "the keys that sign tokens",
    "backup_password": "the password of the backup repositories",
    "monitoring_login": "the password of the dashboards",
    "vault_password": "the password of the vault file",
    "ssh_key": "the key that an administrator logs in with",
}
# Not in .env, and not in the vault.
APART = ("monitoring_login", "vault_password", "ssh_key")
BACKUP, PREVIOUS_BACKUP = "vault_backup_password", "vault_backup_previous_password"
LENGTH = 48
# That somebody else gives, and services do not read.
OTHERS = (
    "vault_registry_password",
    "vault_traces_headers",
    "vault_monitoring_webhook_url",
    "vault_monitoring_deadman_url",
)
# Roles that read what only a third party knows, besides environment and the release.
READERS = {
    "vault_smtp_password": ["base", "monitoring"],
    "vault_registry_password": [],
    "vault_traces_headers": ["traefik"],
    "vault_backup_ping_url": ["backup"],
    "vault_monitoring_webhook_url": ["monitoring"],
    "vault_monitoring_deadman_url": ["monitoring"],
}
# Of another secret, such as a token of a log server.
OTHER_READERS = ["log_shipping", "backup", "monitoring"]


def _keys() -> Any:
    spec = util.spec_from_file_location("berth_keys", ROOT / "services" / "shared" / "keys.py")
    assert spec  # noqa: S101  # an existing file has a spec
    assert spec.loader  # noqa: S101
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generated(kind: str) -> str:
    """Return a new secret of a kind (berth.stack.needs.KINDS)."""
    if kind == "hex":
        return secrets.token_hex(32)
    if kind == "p256":
        return str(_keys().new_private_key())
    if kind == "keyfile":
        return base64.b64encode(secrets.token_bytes(288)).decode()
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(LENGTH))


def previous_of(needs: Needs, name: str) -> str:
    """Return the secret with the former values of a key, which are accepted during a rotation; empty for none."""
    for other in needs.names:
        if name in (sources := needs.sources(other))[:1] and len(sources) > 1:
            return sources[1]
    known = {*needs.names, *needs.kinds}
    former = (one for one in known if "_previous_" in one)
    return next((one for one in former if one.replace("_previous_", "_").removesuffix("s") == name), "")


class NotPossibleError(Exception):
    """There is no such secret, or it has no value; the sentence says what to write."""


def rotation_plan(wanted: str, compose: str, current: Mapping[str, Any], emergency: bool = False) -> dict[str, Any]:
    """Return what changes.

    Args:
        wanted: Classes or names of secrets, separated by commas.
        compose: The text of the compose file.
        current: Secret (vault_...) -> its value now.
        emergency: The former value is refused at once, even where that signs people out.

    Returns:
        phases: One after the other, each with changes (secret -> value) and what follows them.
        former: Secret -> its former value, to be refused at the end.
        given: The secret whose new value is asked for; empty where all are generated.
        classes: Those of APART that were named.
        roles: What reads them, besides environment.
        problem: Why nothing can be rotated; alone, and only then.
    """
    try:
        return _plan(wanted, compose, current, emergency)
    except NotPossibleError as error:
        return {"problem": str(error)}


def _plan(wanted: str, compose: str, current: Mapping[str, Any], emergency: bool) -> dict[str, Any]:
    description = yaml.safe_load(compose) or {}
    needs, services = stack_needs.read(description), description.get("services") or {}
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    names: list[str] = []
    for word in words:
        names += _names(word, needs, {name for name in (MONGO, REDIS) if current.get(f"vault_{name}_uri")})
    for name in names:
        if isinstance(current.get(name), (dict, list)):
            raise NotPossibleError(f"{name} is no text: write the new value into the vault, and run site.yml.")
        if reader := _outlives_releases(name.removeprefix("vault_"), needs, services):
            raise NotPossibleError(
                f"{name} is read by {reader}, which no release replaces: change it in {reader} first, then in "
                "the vault, and run site.yml."
            )
    current = {name: str(text or "") for name, text in current.items()}
    changes: dict[str, str] = {}
    announced: dict[str, str] = {}
    kept: dict[str, str] = {}
    given = ""
    for name in dict.fromkeys(names):
        own = name.removeprefix("vault_")
        kind = needs.kind(own) if own in {*needs.names, *needs.variables} else _kind_of(name)
        if kind in ("given", "optional"):
            if len(names) > 1:
                raise NotPossibleError(f"{name} is given by somebody else: rotate it alone, -e secret={name}")
            given, changes[name] = name, ""
            continue
        if kind == "keyfile":
            raise NotPossibleError(
                f"{name} is what the members of a replica set know each other by; this one has one member. Leave it."
            )
        if not current.get(name):
            raise NotPossibleError(f"{name} is empty or missing in this environment, so there is nothing to rotate.")
        changes[name] = generated(kind)
        if previous := previous_of(needs, own):
            before = [one for one in current.get(f"vault_{previous}", "").split(",") if one]
            announced[f"vault_{previous}"] = ",".join([changes[name], *before])
            kept[f"vault_{previous}"] = ",".join([current[name], *before])
    if BACKUP in changes:
        changes[PREVIOUS_BACKUP] = current[BACKUP]
    former = {
        name.removeprefix("vault_"): current[name]
        for name in changes
        if current.get(name) and name.removeprefix("vault_") in {*needs.names, *needs.variables}
    }
    return {
        "phases": _phases(changes, announced, kept, emergency),
        "former": former,
        "given": given,
        "classes": [word for word in words if word in APART],
        "roles": READERS.get(given, OTHER_READERS) if given else [],
        "names": [*changes],
    }


def _outlives_releases(name: str, needs: Needs, services: Mapping[str, Any]) -> str:
    """Return a service of the application that reads this secret and stays through releases; empty for none."""
    for reader, holder in needs.holders.items():
        known = (
            *holder.secrets,
            *(password_of(one, user) for one, user in ((MONGO, holder.mongo), (REDIS, holder.redis)) if user),
        )
        if reader not in (MONGO, REDIS) and name in known and "platform" in (services[reader].get("profiles") or ()):
            return reader
    return ""


def _names(word: str, needs: Needs, elsewhere: set[str]) -> list[str]:
    if word in ("databases", "database_admins"):
        accounts = {MONGO: needs.databases, REDIS: needs.rights}
        names = [password_of(one, user) for one, users in accounts.items() if one not in elsewhere for user in users]
        admins = [name for name in ADMINS if name.split("_")[0] not in elsewhere]
        found = [f"vault_{name}" for name in (names if word == "databases" else admins)]
        if not found:
            raise NotPossibleError(
                "The databases run elsewhere: change their passwords there, then vault_mongo_uri and vault_redis_uri."
            )
        return found
    if word == "token_keys":
        found = [f"vault_{name}" for name in needs.variables if previous_of(needs, name)]
        if not found:
            raise NotPossibleError("The compose file names no key with former values beside it (x-berth: secrets).")
        return found
    if word == "backup_password":
        return [BACKUP]
    if word in APART:
        return []
    if re.fullmatch(r"vault_[a-z0-9_]+", word):
        return [word]
    known = ", ".join(CLASSES)
    raise NotPossibleError(
        f"secret={word!r}: write one of {known}, or the name of a secret, such as vault_smtp_password."
    )


def _kind_of(name: str) -> str:
    """Return how a secret is made that no service reads."""
    return "random" if name == BACKUP else "given"


def _phases(
    changes: dict[str, str], announced: dict[str, str], kept: dict[str, str], emergency: bool
) -> list[dict[str, Any]]:
    """Return the phases. A key is known to everything that verifies before anything signs with it."""
    if not changes:
        return []
    if not announced or emergency:
        return [{"name": "change", "changes": {**changes, **dict.fromkeys(kept, "")}}]
    return [
        {"name": "announce the new keys", "changes": announced},
        {"name": "use the new keys", "changes": {**changes, **kept}, "wait": True},
        {"name": "forget the former keys", "changes": dict.fromkeys(kept, "")},
    ]


class _VaultLoader(yaml.SafeLoader):
    """Reads a vault file, in which values may have Ansible's tags."""


class _Tagged(str):
    """A value with a tag of Ansible's."""


def _tagged(loader: yaml.SafeLoader, node: Any) -> _Tagged:
    return _Tagged(loader.construct_scalar(node))


_VaultLoader.add_constructor("!unsafe", _tagged)
_VaultLoader.add_constructor("!vault", _tagged)
_VaultLoader.add_constructor("!vault-encrypted", _tagged)


def _read(text: str) -> dict[str, Any]:
    return dict(yaml.load(text, _VaultLoader) or {})  # noqa: S506  # a SafeLoader with two tags more


def vault_problem(text: str, changes: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Return why values cannot be changed in this file; empty where they can.

    Args:
        text: YAML, decrypted.
        changes: Secret -> its new value.
        current: Secret -> its value in this run, from wherever; empty for none.
    """
    known = _read(text)
    for name in changes:
        now = current.get(name)
        if now and str(known.get(name, "")) != str(now) and not isinstance(known.get(name), _Tagged):
            return f"the value of {name} in this run comes from another place. Move it there, and remove it elsewhere"
    return ""


def vault_changed(text: str, changes: Mapping[str, str]) -> str:
    """Return the text of a vault file with other values, its comments and order kept.

    Args:
        text: YAML, decrypted.
        changes: Secret -> value; a missing one is added.
    """
    lines = text.splitlines()
    for name, value in changes.items():
        line = f"{name}: {_quoted(value)}"
        at = next((number for number, one in enumerate(lines) if re.match(rf"{re.escape(name)}\s*:", one)), None)
        if at is None:
            lines.append(line)
            continue
        # A value may go on over indented lines.
        end = at + 1
        while end < len(lines) and re.match(r"[ \t]+\S", lines[end]):
            end += 1
        lines[at:end] = [line]
    changed, wanted = "\n".join(lines) + "\n", {**_read(text), **changes}
    with suppress(yaml.YAMLError):
        if _read(changed) == wanted:
            return changed
    if any(isinstance(one, _Tagged) for one in wanted.values()):
        raise ValueError("a form that cannot be changed here, with tags")
    # It was written in a form that is not read here: values matter more than comments.
    return str(yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def rotation_given(plan: Mapping[str, Any], value: str) -> dict[str, Any]:
    """Return the plan with the value that somebody else gave; with a problem where .env cannot hold it."""
    if re.search(r"['\\\x00-\x1f\x7f]", value):
        return {"problem": f"The new value of {plan['given']} has a quote, a backslash or a line break."}
    return {**plan, "phases": [{**one, "changes": {**one["changes"], plan["given"]: value}} for one in plan["phases"]]}


def rotation_key_problem(settings: list[str], admin: Mapping[str, Any], new: str, former: str, place: str) -> str:
    """Return why an administrator's SSH key cannot be changed; empty where it can.

    Args:
        settings: The text of the file that names the former key.
        admin: The entry of berth_admins.
        new: The new public key.
        former: The public key that it replaces.
        place: The path of that file.
    """
    key = re.compile(r"(ssh-\S+|ecdsa-\S+|sk-\S+) [A-Za-z0-9+/]+=*( .*)?")
    keys = [str(one).strip() for one in admin.get("ssh_keys") or ()]
    if not admin.get("name"):
        return "berth_admins has no such administrator: name one, -e rotate_admin=<name>."
    if not key.fullmatch(new):
        return "Name the file of the new public key, beside its private key: -e rotate_public_key=~/.ssh/<name>.pub."
    if former not in keys:
        return f"The former key is none of the ssh_keys of {admin['name']} in berth_admins."
    if len(keys) > 1 and keys[0] == former and new in keys:
        return (
            "The new key is one of the administrator's already: remove the former one from ssh_keys and run site.yml."
        )
    if former not in settings:
        return f"{place} does not have the former key as it is: name the file that has, -e rotate_settings_file=<path>."
    return ""


def rotation_names(compose: str) -> list[str]:
    """Return the variables of all secrets that can be rotated, of this compose file and Berth's own."""
    needs = stack_needs.read(yaml.safe_load(compose) or {})
    names = dict.fromkeys([*needs.names, *needs.variables, "mongo_uri", "redis_uri", "smtp_password"])
    return [f"vault_{name}" for name in names] + [BACKUP, *OTHERS]


def rotation_classes(_: str) -> str:
    """Return the classes, as they are typed."""
    return "|".join(CLASSES)


class FilterModule:
    """The filters, by the names that playbooks use."""

    def filters(self) -> dict[str, Any]:
        return {
            "rotation_classes": rotation_classes,
            "rotation_given": rotation_given,
            "rotation_key_problem": rotation_key_problem,
            "rotation_names": rotation_names,
            "rotation_plan": rotation_plan,
            "vault_changed": vault_changed,
            "vault_problem": vault_problem,
        }
