"""Filters for alert rules: scaled durations, the objective, the age of secrets, and runbook links."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = r"(\d+)(ms|s|m|h|d)"
# Durations in rules: `for`, ranges, offsets, and intervals of groups. Thresholds, such as the days of a certificate,
# are not scaled.
_IN_RULES = re.compile(rf"(?<=for: ){_TIME}\b|(?<=interval: ){_TIME}\b|(?<=\[){_TIME}(?=[\]:])|(?<= offset ){_TIME}\b")
_INTERVAL = re.compile(r"(?<=interval: )(\d+)s\b")
SHORTEST_INTERVAL = 15
# The objective in rules/slo.yml.
_OBJECTIVE = "expr: vector(0.999)"
# The alert on old secrets in rules/host.yml, up to the next rule, and its limit.
_SECRET_OLD = re.compile(r"^ *- alert: SecretOld\n(?:(?! *- ).*\n)*", re.MULTILINE)
_MAX_AGE = "> 365 * 86400"
# Before a path that is not an address.
_PATH_OF_RUNBOOK = re.compile(r"""runbook_url: ["']?(?!["']?\w+://)(?=\w)""")


def scaled(time: str, factor: float) -> str:
    """Return a Prometheus duration, scaled by a factor; at least one second."""
    found = re.fullmatch(_TIME, time)
    if not found:
        raise ValueError(f"{time} is not a duration")
    if factor == 1:
        return time
    return f"{max(round(int(found[1]) * _UNITS[found[2]] * factor), 1)}s"


def scaled_rules(text: str, factor: float) -> str:
    """Return the rules with all durations scaled, so that tests need not wait."""
    text = _IN_RULES.sub(lambda found: scaled(found[0], factor), text)
    # A group that is evaluated each second is a load of its own.
    return _INTERVAL.sub(lambda found: f"{max(int(found[1]), SHORTEST_INTERVAL)}s", text)


def objective_rules(text: str, percent: float) -> str:
    """Return the rules with this objective: the part of requests that must not fail, in percent."""
    return text.replace(_OBJECTIVE, f"expr: vector({percent / 100:.10g})")


def secret_rules(text: str, days: int) -> str:
    """Return the rules with the alert on secrets that are older than so many days; without it for 0."""
    return text.replace(_MAX_AGE, f"> {days} * 86400") if days else _SECRET_OLD.sub("", text)


def linked_rules(text: str, url: str) -> str:
    """Return the rules with a link to each runbook.

    url: address of the folder docs/runbooks; empty: runbooks stay paths in the checkout. Those of the application lie
    elsewhere in it, which an address that does not end with docs/runbooks does not tell.
    """
    if not url:
        return text
    linked = text.replace("runbook_url: docs/runbooks/", f"runbook_url: {url.rstrip('/')}/")
    top = url.rstrip("/").removesuffix("docs/runbooks")
    return _PATH_OF_RUNBOOK.sub(rf"\g<0>{top}", linked) if top.endswith("/") else linked


class FilterModule:
    """Filters of role monitoring."""

    def filters(self) -> dict[str, object]:
        """Return the filters by their names."""
        return {
            "monitoring_scaled": scaled,
            "monitoring_scaled_rules": scaled_rules,
            "monitoring_objective_rules": objective_rules,
            "monitoring_secret_rules": secret_rules,
            "monitoring_linked_rules": linked_rules,
        }
