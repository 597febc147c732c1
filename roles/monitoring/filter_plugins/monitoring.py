"""Rules with other times and with links, and a time in Prometheus' form."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = r"(\d+)(ms|s|m|h|d)"
# A rule's "for", the range that something is averaged over, and how far back it looks. What is compared with (days of a
# certificate) stays.
_IN_RULES = re.compile(rf"(?<=for: ){_TIME}\b|(?<=\[){_TIME}(?=[\]:])|(?<= offset ){_TIME}\b")


def scaled(time: str, factor: float) -> str:
    """Return a time of Prometheus' form, by a factor, at least a second."""
    found = re.fullmatch(_TIME, time)
    if not found:
        raise ValueError(f"{time} is no time")
    if factor == 1:
        return time
    return f"{max(round(int(found[1]) * _UNITS[found[2]] * factor), 1)}s"


def scaled_rules(text: str, factor: float) -> str:
    """Return the rules with every time in them by a factor, so that a test need not wait."""
    return _IN_RULES.sub(lambda found: scaled(found[0], factor), text)


def linked_rules(text: str, url: str) -> str:
    """Return the rules with a link to each runbook.

    url: address of the folder of runbooks; empty: runbooks stay paths in the checkout.
    """
    return text.replace("runbook_url: docs/runbooks/", f"runbook_url: {url.rstrip('/')}/") if url else text


class FilterModule:
    """Filters of role monitoring."""

    def filters(self) -> dict[str, object]:
        """Name the filters for Ansible."""
        return {
            "monitoring_scaled": scaled,
            "monitoring_scaled_rules": scaled_rules,
            "monitoring_linked_rules": linked_rules,
        }
