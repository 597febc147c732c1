"""Which secrets a stack needs: which service reads them, and how each is made.

Labels of a service name them (berth.secrets, berth.mongo, berth.redis); `x-berth: secrets:` at the top of the compose
file says how those are made that are not random text. Ansible reads the file on the controller, before there is an
engine, and writes the result into .env: the file of secrets says itself who gets which.

Standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from berth.host.refused import Refused

COMPOSE_FILE = "docker-compose.prod.yml"
# The databases of the platform, by the names of their services.
MONGO = "mongo"
REDIS = "redis"
# What they read themselves. Not as labels: with another label, compose starts a container anew.
_OF_DATABASES = {MONGO: "mongo_root_password, mongo_keyfile", REDIS: "redis_admin_password"}
# User ids of Berth's own containers: the edge and monitoring.
MONITORING = "monitoring"
OWN_UIDS = {10000: "the edge", 10005: MONITORING}

# How a secret is made. random: 48 letters and digits. hex: 64 hexadecimal digits. p256: a private key, EC on P-256,
# DER in base64. keyfile: of a MongoDB replica set. given: from the operator. optional: likewise, and may be empty.
# "public_keys_of <secret> <secret>": the public keys of the first, and of those in the second, comma separated.
KINDS = ("random", "hex", "p256", "keyfile", "given", "optional")
PUBLIC_KEYS_OF = "public_keys_of"
_DEFAULT_KINDS = {"mongo_keyfile": "keyfile", "smtp_password": "optional"}

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_DATABASE = re.compile(r"(?!(?:admin|local|config)\Z)[A-Za-z0-9_-]{1,63}")
# No quote and no backslash: it becomes a part of .env.
_RIGHTS = re.compile(r"[\w ~%&*+@:|?{}\[\]<>./#^,;!=-]+", re.ASCII)
_ADDRESSES = {"mongo_uri": "berth.mongo", "redis_uri": "berth.redis"}


@dataclass(frozen=True)
class Holder:
    """A service that reads secrets."""

    uid: int
    # Files of secrets, named as these.
    secrets: tuple[str, ...] = ()
    # Whose account it uses in MongoDB and in Redis; empty: it uses none.
    mongo: str = ""
    redis: str = ""


@dataclass(frozen=True)
class Needs:
    """The secrets of a stack."""

    # Service -> what it reads.
    holders: Mapping[str, Holder] = field(default_factory=dict)
    # MongoDB user -> its database; Redis user -> its ACL rules.
    databases: Mapping[str, str] = field(default_factory=dict)
    rights: Mapping[str, str] = field(default_factory=dict)
    # Secret -> how it is made.
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Return the secrets that have a line in .env: those that services read, and passwords of accounts."""
        read = [name for one in self.holders.values() for name in one.secrets]
        passwords = [password_of(MONGO, user) for user in self.databases]
        passwords += [password_of(REDIS, user) for user in self.rights]
        return list(dict.fromkeys(read + passwords))

    @property
    def variables(self) -> list[str]:
        """Return the secrets that operators have to keep: `names`, with what public keys are derived from."""
        kept = [source for name in self.names for source in (self.sources(name) or [name])]
        return list(dict.fromkeys(kept))

    def files(self) -> dict[str, tuple[str, ...]]:
        """Return service -> the files that it reads in /run/secrets."""
        return {
            name: (*one.secrets, *(("mongo_uri",) if one.mongo else ()), *(("redis_uri",) if one.redis else ()))
            for name, one in self.holders.items()
        }

    def kind(self, name: str) -> str:
        """Return how a secret is made."""
        return self.kinds.get(name) or _DEFAULT_KINDS.get(name, "random")

    def sources(self, name: str) -> list[str]:
        """Return the secrets whose public keys this one holds; [] for any other secret."""
        kind, *sources = self.kind(name).split()
        return sources if kind == PUBLIC_KEYS_OF else []

    def line(self) -> str:
        """Return it as one line of JSON, without a quote or a backslash."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)


def from_line(line: str) -> Needs:
    """Read what `Needs.line` wrote. Raises ValueError where it is none."""
    try:
        found = json.loads(line)
        holders = {name: Holder(**{**one, "secrets": tuple(one["secrets"])}) for name, one in found["holders"].items()}
        return Needs(**{**found, "holders": holders})
    except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"no description of secrets: {error}") from None


def password_of(database: str, user: str) -> str:
    """Return the name of the secret with a user's password."""
    return f"{database}_{user.replace('-', '_')}_password"


def read(compose: Mapping[str, Any]) -> Needs:
    """Read a compose file that YAML has loaded, or that compose has resolved.

    Raises:
        Refused: labels are no such or contradict each other; the message names service and label.
    """
    services = {name: one or {} for name, one in (compose.get("services") or {}).items()}
    holders = {name: found for name, one in services.items() if (found := _holder(name, one))}
    databases: dict[str, str] = {}
    rights: dict[str, str] = {}
    for name, one in services.items():
        labels = labels_of(one)
        for key, users in (("berth.mongo", databases), ("berth.redis", rights)):
            if text := " ".join(labels.get(key, "").split()):
                _account(name, key, text, services)
                users |= {} if text.startswith("@") else {name: text}
    needs = Needs(holders, databases, rights, _kinds((compose.get("x-berth") or {}).get("secrets") or {}))
    _refuse_two_of_a_name(needs)
    read_names = {*needs.names, *(source for name in needs.names for source in needs.sources(name))}
    for name in needs.kinds:
        if name not in read_names:
            raise Refused(f"{COMPOSE_FILE}: x-berth.secrets has {name}, which no label berth.secrets names.", "compose")
    return needs


def labels_of(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a service, which may be written as a mapping or as a list."""
    found = service.get("labels") or {}
    if isinstance(found, list):
        found = dict(str(one).partition("=")[::2] for one in found)
    return {str(key): "" if value is None else str(value) for key, value in found.items()}


def secret_names(text: str) -> tuple[str, ...]:
    """Read the value of berth.secrets. Raises ValueError."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name in _ADDRESSES:
            raise ValueError(f"{name} is written for services with {_ADDRESSES[name]}.")
        if not _NAME.fullmatch(name):
            raise ValueError("a secret has a name of lower-case letters, digits and _; several separated by commas.")
    return names


def database(text: str) -> str:
    """Read the value of berth.mongo. Raises ValueError."""
    if not text.startswith("@") and not _DATABASE.fullmatch(text):
        raise ValueError("write the name of a database of its own, or @SERVICE for the account of another service.")
    return text


def rights(text: str) -> str:
    """Read the value of berth.redis. Raises ValueError."""
    if not text.startswith("@") and not _RIGHTS.fullmatch(text):
        raise ValueError('write rules of Redis\'s ACL, such as "~orders:* +@read +@write", or @SERVICE.')
    return text


_READERS = {"berth.secrets": secret_names, "berth.mongo": database, "berth.redis": rights}


def _holder(name: str, service: Mapping[str, Any]) -> Holder | None:
    labels = labels_of(service)
    if name in _OF_DATABASES:
        labels = {"berth.secrets": _OF_DATABASES[name]}
    values: dict[str, Any] = {}
    for key, parse in _READERS.items():
        text = labels.get(key, "").strip()
        if "$" in text:
            raise _refused(name, key, "has a variable: write the value itself, which is needed before there is a .env.")
        try:
            values[key] = parse(text) if text else ()
        except ValueError as error:
            raise _refused(name, key, f'is "{text}": {error}') from None
    if not any(values.values()):
        return None
    uid = str(service.get("user") or "").partition(":")[0]
    key = next(key for key, value in values.items() if value)
    if not uid.isdigit() or uid == "0":
        raise _refused(
            name, key, 'needs a numeric user, not root, such as user: "10010:10010": its files belong to it.'
        )
    if owner := OWN_UIDS.get(int(uid)):
        raise _refused(name, "user", f"is {uid}, which is that of {owner}: take another, from 10010 on.")
    accounts = {
        short: name if values[label] and not values[label].startswith("@") else str(values[label] or "")[1:]
        for short, label in ((MONGO, "berth.mongo"), (REDIS, "berth.redis"))
    }
    return Holder(int(uid), values["berth.secrets"], accounts[MONGO], accounts[REDIS])


def _account(name: str, key: str, value: str, services: Mapping[str, Any]) -> None:
    """Refuse the account of a service that has none."""
    if not value.startswith("@"):
        return
    other = labels_of(services.get(value[1:]) or {}).get(key, "")
    if not other or other.startswith("@"):
        raise _refused(name, key, f"is {value}, but {value[1:]} is no service with an account of its own.")


def _kinds(given: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in given.items():
        kind = " ".join(str(value).split())
        first, *sources = kind.split() or [""]
        known = kind in KINDS or (first == PUBLIC_KEYS_OF and 1 <= len(sources) <= 2)
        if not known or not _NAME.fullmatch(str(name)):
            raise Refused(
                f"{COMPOSE_FILE}: x-berth.secrets: {name} is {kind!r}. Known: {', '.join(KINDS)}, and"
                f' "{PUBLIC_KEYS_OF} SECRET [SECRET]".',
                "compose",
            )
        found[str(name)] = kind
    return found


def _refuse_two_of_a_name(needs: Needs) -> None:
    """Two users may differ in - and _ alone, and a secret may be named as a user's password."""
    read = {name: service for service, one in needs.holders.items() for name in one.secrets}
    owners: dict[str, str] = {}
    for kind, users in ((MONGO, needs.databases), (REDIS, needs.rights)):
        for user in users:
            name = password_of(kind, user)
            if other := owners.get(name) or read.get(name):
                raise _refused(user, f"berth.{kind}", f"has the password {name}, which is one of {other} already.")
            owners[name] = user


def _refused(service: str, key: str, problem: str) -> Refused:
    return Refused(f"{COMPOSE_FILE}: {key} of service {service} {problem}", "compose")
