"""Read an environment's secrets from a secret manager (berth_secret_manager) instead of group_vars/all/vault.yml."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from ansible.context import CLIARGS
from ansible.errors import AnsibleError
from ansible.inventory.group import Group
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar

from ansible.plugins.vars import BaseVarsPlugin  # type: ignore[attr-defined]  # not the folder here

DOCUMENTATION = """
name: secret_manager
short_description: Secrets of an environment from OpenBao, HashiCorp Vault, AWS, SOPS or a command
description:
  - berth_secret_manager in group_vars/all of an inventory says where from (docs/operations/secret-managers.md).
  - Each run reads the secrets once, into memory. Any error ends the run before a host is contacted.
options: {}
"""

SETTING = "berth_secret_manager"
NAME = re.compile(r"vault_[a-z0-9_]+")
SECONDS = 60
PACKAGES = ".venv/bin/python -m pip install --require-hashes -r requirements/secret-managers.txt"
MAKE = "ansible/new_environment.yml generates all secrets and writes them there: -e env=<env>"
MANUAL = "docs/operations/secret-managers.md"
# Options of a manager besides those of the collection's lookup, and which of them it cannot do without.
OWN = {"hashi_vault": {"path"}, "aws": {"name"}, "sops": {"file"}, "command": {"read"}}
# Options for writing, of the collection's module alone.
WRITE_ONLY = {
    "aws": {"description", "kms_key_id", "replica", "resource_policy"},
    "sops": {"age", "azure_kv", "encryption_context", "gcp_kms", "hc_vault_transit", "kms", "pgp"}
    | {"shamir_secret_sharing_threshold"},
}
# These read no values of an inventory.
READS_NOTHING = ("syntax", "listhosts", "listtasks", "listtags")

# What is in an error -> what to do. The first that fits counts.
REMEDIES = {
    "hashi_vault": (
        ("hvac", f"Its client is not installed: {PACKAGES}"),
        ("No Vault Token", "Sign in (bao login, or vault login), or set VAULT_TOKEN; or choose another auth_method."),
        ("Invalid Vault Token", "The token has expired or is unknown: sign in again (bao login, or vault login)."),
        ("Permission Denied|permission denied", "The token has no policy to read it: grant it, or use another token."),
        ("sealed", "Unseal the server: bao operator unseal, or vault operator unseal."),
        ("missing path", f"No secret is there. {MAKE}"),
        ("CERTIFICATE_VERIFY_FAILED", "Its certificate is not trusted: name the CA's file as ca_cert."),
        ("Errno|Max retries|timed out", "It cannot be reached from here: check url and network."),
    ),
    "aws": (
        ("boto", f"Its client is not installed: {PACKAGES}"),
        ("locate credentials", "No credentials: sign in (aws sso login), or set AWS_PROFILE or AWS_ACCESS_KEY_ID."),
        ("[Ee]xpired", "The credentials have expired: sign in again (aws sso login)."),
        ("InvalidClientTokenId|UnrecognizedClient|security token", "The credentials are not valid: sign in again."),
        ("AccessDenied", "The account lacks secretsmanager:GetSecretValue on it."),
        ("marked (for deletion|deleted)", "Cancel its deletion: aws secretsmanager restore-secret --secret-id <name>"),
        ("ResourceNotFound", f"There is no such secret. {MAKE}"),
        ("region", "Set region in berth_secret_manager, or AWS_REGION."),
        ("connect|timed? ?out|resolve", "It cannot be reached from here: check region, endpoint_url and network."),
    ),
    "sops": (
        ("Errno 2", "The program sops is not installed, or not in PATH."),
        ("does not exist", MAKE),
        ("data key", "No key here decrypts it: set SOPS_AGE_KEY_FILE, or sign in where the key is kept."),
        ("MAC|authentication", "The file was changed after its encryption: take the last good version from git."),
        ("metadata not found", "It is not encrypted: sops encrypt --in-place <file>"),
    ),
    "command": (),
}


class NoSecretsError(AnsibleError):  # type: ignore[misc]
    """The manager can be read, and there are no secrets yet at the place that was named."""


@dataclass(frozen=True)
class Secrets:
    """What a manager holds: names, which begin with vault_, and values; and the version, where it counts versions."""

    values: dict[str, Any]
    version: int | None = None


def settled(setting: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the options of a manager's client: with the whole path of a file, and what the environment adds."""
    options = {key: value for key, value in setting.items() if key != "type"}
    if setting["type"] == "sops":
        options["file"] = str(folder / Path(str(options["file"])).expanduser())
    if setting["type"] == "hashi_vault":
        # The collection knows HashiCorp's names: VAULT_ADDR, VAULT_TOKEN.
        own = {"url": "BAO_ADDR", "token": "BAO_TOKEN"}
        found = {key: os.environ[name] for key, name in own.items() if name in os.environ}
        options = {"timeout": 10, **found, **options}
    return options


def of_hashi_vault(options: dict[str, Any], look: Callable[..., Any]) -> Secrets:
    """Return a secret of a KV engine, version 2 (OpenBao, HashiCorp Vault)."""
    found = look("community.hashi_vault.vault_kv2_get", options.pop("path"), **{"token_validate": True, **options})
    return Secrets(found["secret"], found["metadata"]["version"])


def of_aws(options: dict[str, Any], look: Callable[..., Any]) -> Secrets:
    """Return a secret of AWS Secrets Manager: a JSON object of names and values."""
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
    # Without this, a controller outside AWS asks for an instance's credentials until a time-out.
    os.environ.setdefault("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
    return Secrets(structure(look("amazon.aws.secretsmanager_secret", options.pop("name"), **options)))


def of_sops(options: dict[str, Any], look: Callable[..., Any]) -> Secrets:
    """Return the content of a file that SOPS encrypted, YAML or JSON."""
    file = options.pop("file")
    if not Path(file).is_file():
        raise AnsibleError(f"{file} does not exist")
    return Secrets(structure(look("community.sops.sops", file, **options)))


def of_command(options: dict[str, Any], _look: Callable[..., Any]) -> Secrets:
    """Return what a command prints: a mapping as YAML or JSON. It may prompt, on the terminal."""
    words = options.pop("read")
    words = shlex.split(words) if isinstance(words, str) else [str(one) for one in words]
    if unknown := sorted(set(options) - {"write"}):
        raise AnsibleError(f"it has an unknown key {unknown[0]}")
    try:
        # The owner's own command, from the inventory.
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AnsibleError(str(error)) from None
    if done.returncode:
        raise AnsibleError(f"its exit status is {done.returncode}; its message, if any, stands above")
    return Secrets(structure(done.stdout or "{}"))


def structure(text: Any) -> Any:
    """Return a text of YAML or JSON as its value. The text is a secret: no part of it is in the error."""
    try:
        return yaml.safe_load(str(text))
    except yaml.YAMLError:
        raise AnsibleError("its content is neither YAML nor JSON") from None


READERS = {"hashi_vault": of_hashi_vault, "aws": of_aws, "sops": of_sops, "command": of_command}


def problem_of_setting(setting: Any) -> str:
    """Return what is wrong with the value of berth_secret_manager; empty for nothing."""
    if not isinstance(setting, Mapping):
        return "must be a mapping, such as {type: sops, file: secrets.sops.yaml}."
    kind = setting.get("type")
    if kind not in READERS:
        return f"has the type {kind!r}, but must have one of: {', '.join(READERS)}."
    missing = [one for one in sorted(OWN[kind]) if not setting.get(one)]
    return f"of type {kind} lacks {', '.join(missing)}." if missing else ""


def problem_of_secrets(secrets: Any) -> str:
    """Return what is wrong with the secrets that a manager gave, naming no value; empty for nothing."""
    if not isinstance(secrets, Mapping):
        return "holds no mapping of names and values."
    if odd := sorted(str(name) for name in secrets if not NAME.fullmatch(str(name))):
        return f"holds {', '.join(odd)}: every name in it has to begin with vault_, as in a vault file."
    return ""


def told(setting: Mapping[str, Any]) -> str:
    """Return the name of a manager for a message; it holds no secret."""
    kind = setting["type"]
    where = setting.get("url") or setting.get("endpoint_url") or setting.get("region")
    what = setting[next(iter(OWN[kind]))]
    what = " ".join(map(str, what)) if isinstance(what, list) else what
    return f"{SETTING} ({kind}, {f'{where}, ' if where else ''}{what})"


def read(setting: Any, folder: Path, look: Callable[..., Any]) -> Secrets:
    """Return the secrets of an environment.

    Args:
        setting: the value of berth_secret_manager.
        folder: the inventory's; the path of a file begins there.
        look: calls a lookup: name, term, options.

    Raises:
        NoSecretsError: the manager has nothing there yet.
        AnsibleError: they cannot be read. The message says what to do.
    """
    if problem := problem_of_setting(setting):
        raise AnsibleError(f"{SETTING} {problem} See {MANUAL}.")
    kind = str(setting["type"])
    try:
        options = settled(setting, folder)
        secrets = READERS[kind]({key: options[key] for key in options.keys() - WRITE_ONLY.get(kind, set())}, look)
    # A client raises errors of many libraries.
    except Exception as error:
        said = " ".join(str(error).split())
        if "HTTP" in said and (cause := re.search(r"\[Errno -?\d+\] [^'\")]+", said)):
            said = cause[0]
        remedy = next((what for found, what in REMEDIES[kind] if re.search(found, said)), "")
        text = f"{told(setting)}: {said[:300].rstrip('.')}. {remedy or f'See {MANUAL}.'}"
        raise (NoSecretsError if MAKE in remedy else AnsibleError)(text) from None
    if not secrets.values:
        raise NoSecretsError(f"{told(setting)} is empty. {MAKE}")
    if problem := problem_of_secrets(secrets.values):
        raise AnsibleError(f"{told(setting)} {problem}")
    return Secrets(dict(secrets.values), secrets.version)


def looker(loader: Any) -> Callable[..., Any]:
    """Return what calls a lookup of a collection, and refuses options that it does not have."""

    def look(name: str, term: str, **options: Any) -> Any:
        plugin = lookup_loader.get(name, loader=loader, templar=Templar(loader=loader))
        if plugin is None:
            needed = "ansible-galaxy collection install -r ansible/requirements.yml"
            raise AnsibleError(f"the lookup {name} is missing: {needed}")
        known = {one for key, spec in plugin.option_definitions.items() for one in (key, *known_as(spec))}
        if unknown := sorted(set(options) - known):
            raise AnsibleError(f"it has an unknown key {unknown[0]}; the keys are those of the lookup {name}")
        return plugin.run([term], variables={}, **options)[0]

    return look


def known_as(spec: Mapping[str, Any]) -> list[str]:
    """Return the further names of an option."""
    return [one["name"] if isinstance(one, Mapping) else one for one in spec.get("aliases") or ()]


class VarsModule(BaseVarsPlugin):  # type: ignore[misc]
    """Gives the group all of an inventory its secrets."""

    REQUIRES_ENABLED = True
    is_stateless = True
    # Once a run, for every instance.
    _read: ClassVar[dict[str, Secrets]] = {}

    def get_vars(self, loader: Any, path: str, entities: Any) -> dict[str, Any]:
        """Return the secrets for the group all."""
        entities = entities if isinstance(entities, list) else [entities]
        group = next((one for one in entities if isinstance(one, Group) and one.name == "all"), None)
        if group is None or any(CLIARGS.get(one) for one in READS_NOTHING):
            return {}
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        given, origin = self._given(loader, folder, group)
        if not given.get(SETTING):
            return {}
        try:
            return self._secrets(loader, folder, given, origin)
        except AnsibleError as error:
            unread = getattr(loader.load_from_file, "unread", None)
            if unread is None:
                raise
            # In the doctor: a line of its table.
            unread[SETTING] = str(error)
            return {}

    def _secrets(self, loader: Any, folder: Path, given: dict[str, Any], origin: dict[str, str]) -> dict[str, Any]:
        setting = Templar(loader=loader, variables={"inventory_dir": str(folder)}).template(given[SETTING])
        key = json.dumps([str(folder), setting], default=str, sort_keys=True)
        if key not in self._read:
            self._read[key] = read(setting, folder, looker(loader))
        values = self._read[key].values
        if twice := sorted(set(values) & set(given)):
            raise AnsibleError(
                f"{', '.join(twice)}: in {origin[twice[0]]} as well as in {told(setting)}. Remove it from one of them,"
                " so that it is plain which one counts."
            )
        return values

    @staticmethod
    def _given(loader: Any, folder: Path, group: Group) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the variables in files of the group all, and the file of each."""
        given = dict(group.vars)
        origin = dict.fromkeys(given, "the inventory")
        for file in loader.find_vars_files(str(folder / "group_vars"), "all"):
            # As host_group_vars does: both share what is loaded.
            values = loader.load_from_file(file, cache="all", unsafe=True, trusted_as_template=True) or {}
            if isinstance(values, Mapping):
                given |= values
                origin |= dict.fromkeys(values, os.path.relpath(file))
        return given, origin
