"""What roles need of the application's compose file."""

from __future__ import annotations

import yaml
from ansible.errors import AnsibleFilterError


def compose_platform(text: str) -> list[str]:
    """Return the services that outlive releases: those of profile platform.

    Not by the filter from_yaml, which warns of every key that a merge (`<<`) brings and the service sets anew.
    """
    try:
        services = yaml.safe_load(text)["services"].items()
        return [name for name, one in services if "platform" in ((one or {}).get("profiles") or ())]
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise AnsibleFilterError(f"docker-compose.prod.yml is not a compose file: {error}") from None


class FilterModule:
    """Filters of roles and playbooks."""

    def filters(self) -> dict[str, object]:
        """Return the filters by their names."""
        return {"compose_platform": compose_platform}
