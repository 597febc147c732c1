"""What is wrong with the values of .env, as sentences an operator can act on."""

from __future__ import annotations

import re

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
SECRETS = ("JWT_SECRET_KEY", *MONGO_SECRETS, *REDIS_SECRETS, "FLOWER_PASSWORD")
LEAST_LENGTH = {"JWT_SECRET_KEY": 32}
OTHER_SECRETS = ("JWT_PREVIOUS_SECRET_KEYS", "SMTP_PASSWORD", "MONGO_URI", "REDIS_URI")

# A quote, a backslash or a line break would end the quoted value early and let the rest in as something else.
UNSAFE = re.compile(r"['\\\x00-\x1f\x7f]")
EXAMPLE = re.compile(r"example\.(com|net|org)\b|\.example\b|change.?me|replace.?me|<[^@>]*>$|^example", re.I)
HOST_NAME = re.compile(r"^(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$")

# Values that more than one role needs have a name of their own in the inventories.
JOINED = {
    "BERTH_DOMAIN": "berth_domain",
    "SMTP_HOST": "berth_smtp_host",
    "MAIL_FROM": "berth_mail_from",
    "TRACES_ENDPOINT": "berth_traces_endpoint",
    "TRACES_RATIO": "berth_traces_ratio",
}


def _role_variable(name: str) -> str:
    return "environment_domain" if name == "BERTH_DOMAIN" else f"environment_{name.lower()}"


def _where(name: str) -> str:
    if name in SECRETS or name in OTHER_SECRETS:
        return f"{_role_variable(name)} (in this project: vault_{name.lower()} in {VAULT_FILE})"
    return f"{_role_variable(name)} (in this project: {JOINED.get(name, _role_variable(name))} in {MAIN_FILE})"


def _remedy(name: str) -> str:
    if name == "MONGO_KEYFILE":
        return "Make one: openssl rand -base64 384 | tr -d '\\n'"
    if name in SECRETS:
        return (
            "Make one: openssl rand -hex 32, or all of them: ansible-playbook ansible/new_environment.yml -e env=<env>"
        )
    return {
        "BERTH_DOMAIN": "Set it to the public name of the site, such as www.your-company.net.",
        "SMTP_HOST": "Set it to the mail server that sends for you.",
        "MAIL_FROM": "Set it to an address your mail server may send from.",
    }.get(name, "Set it.")


def _required(values: dict[str, str]) -> list[str]:
    names = ["BERTH_DOMAIN", "JWT_SECRET_KEY", "SMTP_HOST", "MAIL_FROM", "FLOWER_PASSWORD"]
    names += [] if values["MONGO_URI"] else MONGO_SECRETS
    names += [] if values["REDIS_URI"] else REDIS_SECRETS
    return names


def _wrong_form(values: dict[str, str]) -> list[str]:
    """Say which values that are there cannot be right."""
    problems = []
    if values["BERTH_DOMAIN"] and not HOST_NAME.match(values["BERTH_DOMAIN"]):
        problems.append(
            f"{_where('BERTH_DOMAIN')} is not a host name: lower case, no https://, no port, at least one dot."
        )
    if values["PUBLIC_URL"] and not re.match(r"^https://[^/\s]+$", values["PUBLIC_URL"]):
        problems.append("environment_public_url must be https:// and a name, without a path or a slash at its end.")
    if values["MONGO_URI"] and not re.match(r"^mongodb(\+srv)?://[^:/@\s]+:[^:/@\s]+@\S+$", values["MONGO_URI"]):
        problems.append(
            f"{_where('MONGO_URI')} must read mongodb://user:password@host/ or mongodb+srv://user:password@host/"
            " with special characters percent-encoded."
        )
    if values["REDIS_URI"] and not re.match(r"^rediss?://([^:/@\s]*:[^:/@\s]+@)?[^/@\s]+(/\d+)?$", values["REDIS_URI"]):
        problems.append(f"{_where('REDIS_URI')} must read redis://user:password@host:port/0 or rediss://...")
    if values["MAIL_FROM"] and not re.search(r"[^@\s<]+@[^@\s>]+", values["MAIL_FROM"]):
        problems.append(f"{_where('MAIL_FROM')} holds no mail address.")
    if values["TRACES_ENDPOINT"] and not re.match(r"^https?://[^/?#@\s]+/[^?#@\s]+$", values["TRACES_ENDPOINT"]):
        problems.append(
            f"{_where('TRACES_ENDPOINT')} must be where a collector takes OTLP over HTTP, with its path and without a"
            " password, such as https://collector.your-company.net:4318/v1/traces."
        )
    if not re.match(r"^(0(\.\d+)?|1(\.0+)?)$", values["TRACES_RATIO"]):
        problems.append(f"{_where('TRACES_RATIO')} must be a number from 0 to 1.")
    if values["MONGO_KEYFILE"] and not re.match(r"^[A-Za-z0-9+/=]{6,1024}$", values["MONGO_KEYFILE"]):
        problems.append(f"{_where('MONGO_KEYFILE')} must be 6 to 1024 characters of base64. {_remedy('MONGO_KEYFILE')}")
    return problems


def environment_problems(values: dict[str, object]) -> list[str]:
    """Return one sentence for each value that is missing, an example, too short, or would break the file."""
    texts = {name: str(value) for name, value in values.items()}
    problems = []
    for name in _required(texts):
        if not texts[name]:
            problems.append(f"{_where(name)} is missing. {_remedy(name)}")
    for name, text in texts.items():
        if UNSAFE.search(text):
            problems.append(
                f"{_where(name)} holds a quote ('), a backslash or a line break, which .env cannot hold. Choose anew."
            )
        elif text and EXAMPLE.search(text):
            problems.append(f"{_where(name)} is still an example. {_remedy(name)}")
        elif name in SECRETS and 0 < len(text) < LEAST_LENGTH.get(name, 16) and name != "MONGO_KEYFILE":
            least = LEAST_LENGTH.get(name, 16)
            problems.append(f"{_where(name)} is shorter than {least} characters. {_remedy(name)}")
    return problems + _wrong_form(texts)


class FilterModule:
    """Filters of role environment."""

    def filters(self) -> dict[str, object]:
        """Name the filters for Ansible."""
        return {"environment_problems": environment_problems}
