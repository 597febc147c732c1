"""What a host, a mail address or a URL has to look like, for every preflight: the rules that services start by."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any


def _load() -> ModuleType:
    spec = util.spec_from_file_location(
        "berth_rules", Path(__file__).resolve().parents[3] / "services" / "shared" / "rules.py"
    )
    assert spec  # noqa: S101  # a file that is there has one
    assert spec.loader  # noqa: S101
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RULES = _load()


def rules_problems(values: list[tuple[str, str, Any]]) -> list[str]:
    """Check each value against the rule that is named for it.

    values: for each the variable's name for the operator, the rule (host, port, domain, sender, recipients, address,
        url, https_url, login_url, collector), and the value.

    Returns a sentence for each violation, without the value; empty values are valid.
    Raises KeyError for an unknown rule.
    """
    rules = {
        "host": RULES.host_problem,
        "port": RULES.port_problem,
        "domain": RULES.domain_problem,
        "sender": RULES.sender_problem,
        "recipients": RULES.recipients_problem,
        "address": lambda value: (
            "holds more than one address: write one" if "," in value else RULES.recipients_problem(value)
        ),
        "url": RULES.url_problem,
        "https_url": lambda value: RULES.url_problem(value, ("https",)),
        # For callers that support https://user:password@host.
        "login_url": lambda value: RULES.url_problem(value, login=True),
        "collector": RULES.collector_problem,
    }
    said = []
    for variable, rule, value in values:
        text = "" if value is None else str(value)
        problem = rules[rule](text) or ("is still an example: set it" if RULES.is_example(text) else "")
        said += [f"{variable} {problem}."] if problem else []
    return said


def left_open(values: dict[str, Any]) -> list[str]:
    """Return the names of the values that are or contain a placeholder (<...>) of the example inventory."""

    def is_open(value: Any) -> bool:
        if isinstance(value, dict):
            return any(map(is_open, value.values()))
        if isinstance(value, list):
            return any(map(is_open, value))
        return isinstance(value, str) and bool(RULES.is_placeholder(value))

    return [name for name, value in values.items() if is_open(value)]


def site_names_problems(domain: str, aliases: list[str], variables: tuple[str, str]) -> list[str]:
    """Return a sentence for each problem of the site's domain and aliases.

    variables: their names for the operator.
    """
    said = rules_problems([(variables[0], "domain", domain)])
    if not domain:
        said.append(f"{variables[0]} is missing. Set it to the public name of the site, such as www.your-company.net.")
    for place, alias in enumerate(aliases):
        named = f"{variables[1]}: number {place + 1}"
        said += rules_problems([(named, "domain", alias)])
        if not alias:
            said.append(f"{named} is empty. Remove it.")
        elif alias == domain:
            said.append(f"{named} is the site's own name. Remove it.")
        elif alias in aliases[:place]:
            said.append(f"{named} is there twice. Remove it.")
    return said


class FilterModule:
    """Filters that several roles use."""

    def filters(self) -> dict[str, object]:
        """Return the filters by their names."""
        return {
            "mail_address": RULES.mail_address,
            "left_open": left_open,
            "rules_problems": rules_problems,
            "site_names_problems": site_names_problems,
        }
