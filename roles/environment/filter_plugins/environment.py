"""The lines of .env: Berth's own, the secrets that the compose file names, and the owner's."""

from __future__ import annotations

import difflib
import re
import sys
from importlib import util
from ipaddress import ip_network
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from berth.host.refused import Refused  # found there
from berth.stack import needs as stack_needs
from berth.stack.needs import MONGO, REDIS, Needs, password_of

ROOT = Path(__file__).resolve().parents[3]

VAULT_FILE = "inventories/<env>/group_vars/all/vault.yml"
MAIN_FILE = "inventories/<env>/group_vars/all/main.yml"

# The line that says which service reads which secret; `berth secrets` reads it.
DESCRIPTION = "BERTH_SECRETS"
LEAST_LENGTH = 16
# MongoDB manual, "Keyfiles".
KEYFILE = re.compile(r"^[A-Za-z0-9+/=]{6,1024}$")
EDGE_UID = 10000

# A quote, a backslash or a line break would end the quoted value early, and the rest would be read as other settings.
UNSAFE = re.compile(r"['\\\x00-\x1f\x7f]")

# Values that are derived from a variable of another name.
MADE_OF = {"BERTH_DOMAIN": "domain"}

# Values that several roles need have another name in the inventories.
JOINED = {
    "BERTH_DOMAIN": "berth_domain",
    "SMTP_HOST": "berth_smtp_host",
    "SMTP_PORT": "berth_smtp_port",
    "SMTP_USERNAME": "berth_smtp_username",
    "SMTP_SECURITY": "berth_smtp_security",
    "MAIL_FROM": "berth_mail_from",
    "TRUSTED_PROXIES": "berth_trusted_proxies",
    "TRACES_ENDPOINT": "berth_traces_endpoint",
    "TRACES_RATIO": "berth_traces_ratio",
}


def _shared(name: str) -> ModuleType:
    """Load the validation rules of the services, so that a value accepted here is accepted there."""
    spec = util.spec_from_file_location(f"berth_{name}", ROOT / "services" / "shared" / f"{name}.py")
    assert spec  # noqa: S101  # an existing file has a spec
    assert spec.loader  # noqa: S101
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RULES = _shared("rules")
KEYS = _shared("keys")
# The rule for each value, and for each kind of secret.
KEPT = {
    "BERTH_DOMAIN": RULES.domain_problem,
    "SMTP_HOST": RULES.host_problem,
    "SMTP_PORT": RULES.port_problem,
    "MAIL_FROM": RULES.sender_problem,
    "TRACES_ENDPOINT": RULES.collector_problem,
}
KIND_RULES = {
    "p256": KEYS.private_key_problem,
    "hex": RULES.signing_key_problem,
    stack_needs.PUBLIC_KEYS_OF: KEYS.public_keys_problem,
    "keyfile": lambda text: (
        "" if re.match(r"^[A-Za-z0-9+/=]{6,1024}$", text) else "must be 6 to 1024 characters of base64"
    ),
}
MAKE_ALL = "all of them: ansible-playbook ansible/new_environment.yml -e env=<env>"
MAKE = {
    "p256": f"Generate one: {KEYS.MAKE_PRIVATE_KEY}, or {MAKE_ALL}",
    "keyfile": "Generate one: openssl rand -base64 384 | tr -d '\\n'",
    "given": f"Write it there: ansible-vault edit {VAULT_FILE}, or in the secret manager",
}


def _role_variable(name: str) -> str:
    # The services say SMTP_, the roles mail_, as base does.
    return f"environment_{MADE_OF.get(name, name.lower()).replace('smtp_', 'mail_')}"


def _where(name: str) -> str:
    if name in ("SMTP_PASSWORD", "MONGO_URI", "REDIS_URI"):
        return _vault(name.lower())
    return f"{_role_variable(name)} (in this project: {JOINED.get(name, _role_variable(name))} in {MAIN_FILE})"


def _vault(secret: str) -> str:
    return f"vault_{secret} in {VAULT_FILE} (or in the secret manager)"


def _remedy(name: str) -> str:
    return {
        "BERTH_DOMAIN": "Set it to the public name of the site, such as www.your-company.net.",
        "SMTP_HOST": "Set it to the mail server that sends for you.",
        "MAIL_FROM": "Set it to an address your mail server may send from.",
    }.get(name, "Set it.")


def _wrong_form(values: dict[str, str]) -> list[str]:
    """Return a sentence for each invalid value that is no secret of a service."""
    problems = []
    for name, rule in KEPT.items():
        text = values[name]
        # Missing values, examples, and values that would break the file are already reported.
        if text and not UNSAFE.search(text) and not RULES.is_example(text) and (problem := rule(text)):
            problems.append(f"{_where(name)} {problem}.")
    # It is derived from the domain.
    named = not RULES.domain_problem(values["BERTH_DOMAIN"])
    if named and values["PUBLIC_URL"] and not re.match(r"^https://[^/\s]+$", values["PUBLIC_URL"]):
        problems.append("environment_public_url must be https:// and a name, without a path or a slash at its end.")
    if values["MONGO_URI"] and not re.match(r"^mongodb(\+srv)?://[^:/@\s]+:[^:/@\s]+@\S+$", values["MONGO_URI"]):
        problems.append(
            f"{_where('MONGO_URI')} must read mongodb://user:password@host/ or mongodb+srv://user:password@host/"
            " with special characters percent-encoded."
        )
    if values["REDIS_URI"] and not re.match(r"^rediss?://([^:/@\s]*:[^:/@\s]+@)?[^/@\s]+(/\d+)?$", values["REDIS_URI"]):
        problems.append(f"{_where('REDIS_URI')} must read redis://user:password@host:port/0 or rediss://...")
    for proxy in filter(None, values["TRUSTED_PROXIES"].split(",")):
        if not _is_network(proxy):
            problems.append(
                f"{_where('TRUSTED_PROXIES')} contains {proxy}, which is neither an address nor a network such as"
                " 203.0.113.0/24."
            )
    if not re.match(r"^(0(\.\d+)?|1(\.0+)?)$", values["TRACES_RATIO"]):
        problems.append(f"{_where('TRACES_RATIO')} must be a number from 0 to 1.")
    return problems


def _secret_problems(values: dict[str, str], needs: Needs) -> list[str]:
    """Return a sentence for each secret that is missing, an example, too short, or of another form."""
    unused = _of_managed(values, needs)
    problems = []
    for name in needs.names:
        # What public keys are derived from is judged by what cannot be derived.
        sources, kind, text = needs.sources(name), needs.kind(name), values[name.upper()]
        where = _vault(sources[-1] if sources else name)
        remedy = MAKE.get(kind, f"Generate one: openssl rand -hex 32, or {MAKE_ALL}")
        rule = KIND_RULES.get(kind.split()[0])
        if UNSAFE.search(text):
            problems.append(_unsafe(where))
        elif not text:
            # Public keys are missing with the private key, which has a sentence of its own.
            problems += [] if sources or kind == "optional" or name in unused else [f"{where} is missing. {remedy}"]
        elif RULES.is_example(text):
            problems.append(f"{where} is still an example. {remedy}")
        elif rule and (problem := rule(text)):
            problems.append(f"{where} {problem}.")
        elif kind == "random" and len(text) < LEAST_LENGTH:
            problems.append(f"{where} is shorter than {LEAST_LENGTH} characters. {remedy}")
    return problems


def _of_managed(values: dict[str, str], needs: Needs) -> set[str]:
    """Return the secrets of local databases in whose place a managed one is used."""
    unused: set[str] = set()
    for database, users, uri in ((MONGO, needs.databases, "MONGO_URI"), (REDIS, needs.rights, "REDIS_URI")):
        if values[uri]:
            unused |= {password_of(database, user) for user in users}
            unused |= set(needs.holders[database].secrets) if database in needs.holders else set()
    return unused


def _unsafe(where: str) -> str:
    return (
        f"{where} contains a quote ('), a backslash or a line break, which .env cannot contain. Choose another value."
    )


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def environment_problems(values: dict[str, object]) -> list[str]:
    """Return a sentence for each value that is missing, an example, too short, invalid, or would break the file."""
    texts = {name: str(value) for name, value in values.items()}
    needs = stack_needs.from_line(texts[DESCRIPTION])
    secrets = {name.upper() for name in needs.names}
    problems = [
        f"{_where(name)} is missing. {_remedy(name)}"
        for name in ("BERTH_DOMAIN", "SMTP_HOST", "MAIL_FROM")
        if not texts[name]
    ]
    for name, text in texts.items():
        if name in secrets:
            continue
        if UNSAFE.search(text):
            problems.append(_unsafe(_where(name)))
        elif text and RULES.is_example(text):
            problems.append(f"{_where(name)} is still an example. {_remedy(name)}")
    return problems + _secret_problems(texts, needs) + _wrong_form(texts)


def environment_needs(compose: str) -> dict[str, Any]:
    """Return what a compose file says of secrets.

    Returns: `problem`, a sentence where it is wrong; `names`, the secrets that operators keep.
    """
    try:
        needs = _needs(compose)
    except AnsibleFilterError as error:
        return {"problem": str(error), "names": []}
    return {"problem": "", "names": needs.variables}


def environment_accounts(compose: str) -> dict[str, int]:
    """Return account -> uid, for the users of all containers and of the edge."""
    found = {EDGE_UID: "berth-edge"}
    for name, service in _loaded(compose)["services"].items():
        uid = str((service or {}).get("user") or "").partition(":")[0]
        if uid.isdigit() and uid != "0":
            found.setdefault(int(uid), re.sub(r"[^a-z0-9_-]", "_", f"berth-{name}".lower())[:32])
    return {account: uid for uid, account in found.items()}


def environment_lines(
    own: dict[str, Any], compose: str, secrets: dict[str, Any], more: dict[str, Any]
) -> dict[str, str]:
    """Return the lines of .env.

    Args:
        own: the lines that are Berth's.
        compose: the text of the compose file.
        secrets: name -> value of the secrets that it names.
        more: the owner's lines.
    """
    needs = _needs(compose)
    if problems := environment_variable_problems(more, compose, own):
        raise AnsibleFilterError(" ".join(problems))
    lines = {name: str(value) for name, value in own.items()}
    for name in needs.names:
        lines.setdefault(name.upper(), _value(needs, name, secrets))
    lines |= {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in more.items()}
    return {**lines, DESCRIPTION: needs.line()}


def environment_variable_problems(more: dict[str, Any], compose: str, own: dict[str, Any]) -> list[str]:
    """Return a sentence for each of the owner's lines that nothing reads, or that is another's."""
    read = set(re.findall(r"\$\{?([A-Z][A-Z0-9_]*)", compose))
    taken = {*own, *(name.upper() for name in _needs(compose).names), DESCRIPTION}
    problems = []
    for name, value in more.items():
        where = f"berth_environment.{name}"
        if name in taken:
            problems.append(f"{where} is a line that Berth writes from another variable: docs/operations/variables.md.")
        elif name not in read:
            close = next(iter(difflib.get_close_matches(str(name), read - taken, 1, 0.7)), "")
            meant = f" Did you mean {close}?" if close else ""
            problems.append(f"{where} is read nowhere in {stack_needs.COMPOSE_FILE}.{meant}")
        elif isinstance(value, dict | list) or value is None:
            problems.append(f"{where} must be text or a number.")
    return problems


def _value(needs: Needs, name: str, secrets: dict[str, Any]) -> str:
    sources = needs.sources(name)
    if not sources:
        return str(secrets.get(name) or "")
    private, previous = (str(secrets.get(one) or "") for one in (sources + sources)[:2])
    return environment_public_keys([private, previous if len(sources) > 1 else ""])


def _loaded(compose: str) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load(compose) | {})
    except (yaml.YAMLError, TypeError) as error:
        raise AnsibleFilterError(f"{stack_needs.COMPOSE_FILE} is not a compose file: {error}") from None


def _needs(compose: str) -> Needs:
    try:
        return stack_needs.read(_loaded(compose))
    except Refused as refused:
        raise AnsibleFilterError(refused.reason) from None


def environment_public_keys(keys: list[str]) -> str:
    """Return the public keys of a private key and of the previous keys, which may already be public keys.

    Args:
        keys: the private key, and the earlier ones with commas between.
    """
    private, previous = keys
    public = [] if KEYS.private_key_problem(private) or not private else [KEYS.public_key(private)]
    # Any other text is kept, and environment_problems reports it.
    for key in KEYS.split(previous):
        public.append(key if KEYS.private_key_problem(key) else KEYS.public_key(key))
    return ",".join(dict.fromkeys(public))


class FilterModule:
    """Filters of role environment."""

    def filters(self) -> dict[str, object]:
        """Return the filters by their names."""
        return {
            "environment_accounts": environment_accounts,
            "environment_lines": environment_lines,
            "environment_needs": environment_needs,
            "environment_problems": environment_problems,
            "environment_variable_problems": environment_variable_problems,
        }
