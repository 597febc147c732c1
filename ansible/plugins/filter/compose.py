"""What roles need of the application's compose file."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from berth.host.refused import Refused  # found at the root
from berth.stack import databases


def compose_platform(text: str) -> list[str]:
    """Return the services that outlive releases: those of profile platform.

    Not by the filter from_yaml, which warns of every key that a merge (`<<`) brings and the service sets anew.
    """
    services = _read(text)["services"].items()
    return [name for name, one in services if "platform" in ((one or {}).get("profiles") or ())]


def compose_databases(text: str) -> list[dict[str, Any]]:
    """Return the databases that the application dumps and restores itself: name, backup, restore (lists of words)."""
    try:
        return [asdict(one) for one in databases.read(_read(text))]
    except Refused as refused:
        raise AnsibleFilterError(refused.reason) from None


def _read(text: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = yaml.safe_load(text)
        for service in found["services"].values():
            (service or {}).get("profiles")
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise AnsibleFilterError(f"docker-compose.prod.yml is not a compose file: {error}") from None
    return found


class FilterModule:
    """Filters of roles and playbooks."""

    def filters(self) -> dict[str, object]:
        """Return the filters by their names."""
        return {"compose_platform": compose_platform, "compose_databases": compose_databases}
