"""Checks the values of .env."""

from __future__ import annotations

import re
from importlib import util
from ipaddress import ip_network
from pathlib import Path
from types import ModuleType

VAULT_FILE = "inventories/<env>/group_vars/all/vault.yml"
MAIN_FILE = "inventories/<env>/group_vars/all/main.yml"

MONGO_SECRETS = (
    "MONGO_ROOT_PASSWORD",
    "MONGO_AUTH_SERVICE_PASSWORD",
    "MONGO_USER_SERVICE_PASSWORD",
    "MONGO_CELERY_WORKER_PASSWORD",
    "MONGO_KEYFILE",
)
REDIS_SECRETS = (
    "REDIS_ADMIN_PASSWORD",
    "REDIS_AUTH_SERVICE_PASSWORD",
    "REDIS_USER_SERVICE_PASSWORD",
    "REDIS_CELERY_WORKER_PASSWORD",
)
SECRETS = ("JWT_PRIVATE_KEY", "JWT_SECRET_KEY", *MONGO_SECRETS, *REDIS_SECRETS, "FLOWER_PASSWORD")
LEAST_LENGTH = 16
OTHER_SECRETS = ("JWT_PUBLIC_KEYS", "JWT_PREVIOUS_SECRET_KEYS", "SMTP_PASSWORD", "MONGO_URI", "REDIS_URI")

# A quote, a backslash or a line break would end the quoted value early, and the rest would be read as other settings.
UNSAFE = re.compile(r"['\\\x00-\x1f\x7f]")

# Values that are derived from a variable of another name.
MADE_OF = {
    "BERTH_DOMAIN": "domain",
    # The current one is derived from the private key, which is checked by itself.
    "JWT_PUBLIC_KEYS": "jwt_previous_keys",
}

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
    spec = util.spec_from_file_location(
        f"berth_{name}", Path(__file__).resolve().parents[3] / "services" / "shared" / f"{name}.py"
    )
    assert spec  # noqa: S101  # an existing file has a spec
    assert spec.loader  # noqa: S101
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RULES = _shared("rules")
KEYS = _shared("keys")
# The rule for each value.
KEPT = {
    "BERTH_DOMAIN": RULES.domain_problem,
    "JWT_PRIVATE_KEY": KEYS.private_key_problem,
    "JWT_PUBLIC_KEYS": KEYS.public_keys_problem,
    "JWT_SECRET_KEY": RULES.signing_key_problem,
    "SMTP_HOST": RULES.host_problem,
    "SMTP_PORT": RULES.port_problem,
    "MAIL_FROM": RULES.sender_problem,
    "TRACES_ENDPOINT": RULES.collector_problem,
}


def _base(name: str) -> str:
    return MADE_OF.get(name, name.lower())


def _role_variable(name: str) -> str:
    # The services say SMTP_, the roles mail_, as base does.
    return f"environment_{_base(name).replace('smtp_', 'mail_')}"


def _where(name: str) -> str:
    if name in SECRETS or name in OTHER_SECRETS:
        return f"{_role_variable(name)} (in this project: vault_{_base(name)} in {VAULT_FILE})"
    return f"{_role_variable(name)} (in this project: {JOINED.get(name, _role_variable(name))} in {MAIN_FILE})"


def _remedy(name: str) -> str:
    if name == "JWT_PRIVATE_KEY":
        return (
            f"Generate one: {KEYS.MAKE_PRIVATE_KEY}, or add it to the existing secrets:"
            " ansible-playbook ansible/new_environment.yml -e env=<env>"
        )
    if name == "MONGO_KEYFILE":
        return "Generate one: openssl rand -base64 384 | tr -d '\\n'"
    if name in SECRETS:
        return (
            "Generate one: openssl rand -hex 32, or all of them:"
            " ansible-playbook ansible/new_environment.yml -e env=<env>"
        )
    return {
        "BERTH_DOMAIN": "Set it to the public name of the site, such as www.your-company.net.",
        "SMTP_HOST": "Set it to the mail server that sends for you.",
        "MAIL_FROM": "Set it to an address your mail server may send from.",
    }.get(name, "Set it.")


def _required(values: dict[str, str]) -> list[str]:
    names = ["BERTH_DOMAIN", "JWT_PRIVATE_KEY", "JWT_SECRET_KEY", "SMTP_HOST", "MAIL_FROM", "FLOWER_PASSWORD"]
    names += [] if values["MONGO_URI"] else MONGO_SECRETS
    names += [] if values["REDIS_URI"] else REDIS_SECRETS
    return names


def _wrong_form(values: dict[str, str]) -> list[str]:
    """Return a sentence for each invalid value."""
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
    if values["MONGO_KEYFILE"] and not re.match(r"^[A-Za-z0-9+/=]{6,1024}$", values["MONGO_KEYFILE"]):
        problems.append(f"{_where('MONGO_KEYFILE')} must be 6 to 1024 characters of base64. {_remedy('MONGO_KEYFILE')}")
    return problems


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def environment_problems(values: dict[str, object]) -> list[str]:
    """Return a sentence for each value that is missing, an example, too short, invalid, or would break the file."""
    texts = {name: str(value) for name, value in values.items()}
    problems = []
    for name in _required(texts):
        if not texts[name]:
            problems.append(f"{_where(name)} is missing. {_remedy(name)}")
    for name, text in texts.items():
        if UNSAFE.search(text):
            problems.append(
                f"{_where(name)} contains a quote ('), a backslash or a line break, which .env cannot contain."
                " Choose another value."
            )
        elif text and RULES.is_example(text):
            problems.append(f"{_where(name)} is still an example. {_remedy(name)}")
        elif name in SECRETS and 0 < len(text) < LEAST_LENGTH and name not in (*KEPT, "MONGO_KEYFILE"):
            problems.append(f"{_where(name)} is shorter than {LEAST_LENGTH} characters. {_remedy(name)}")
    return problems + _wrong_form(texts)


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
            "environment_problems": environment_problems,
            "environment_public_keys": environment_public_keys,
        }
