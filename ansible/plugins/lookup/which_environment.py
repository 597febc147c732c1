"""Check that a playbook was given an environment: there is no default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ansible.constants as ansible_constants

from ansible.plugins.lookup import LookupBase  # type: ignore[attr-defined]  # not the folder here

DOCUMENTATION = """
name: which_environment
short_description: Return a sentence if no environment was given
description: Takes no terms. Returns nothing if the run includes a host of group berth.
options: {}
"""

ROOT = Path(__file__).resolve().parents[3]


def problems(
    sources: Sequence[str], usual: Sequence[str], hosts: Sequence[str], reached: Sequence[str], folders: Sequence[str]
) -> list[str]:
    """Explain why a run includes no host of group berth.

    Args:
        sources: Inventories of the run.
        usual: Ansible's default inventories.
        hosts: Hosts of group berth.
        reached: Hosts that the run is limited to.
        folders: Existing environments.

    Returns:
        One sentence, or none.
    """
    say = f"Name an environment: -i inventories/production (there are: {', '.join(folders)})."
    if several := [one for one in sources if any(Path(one).glob("*/hosts.yml"))]:
        return [f"{' and '.join(several)} contains several environments. {say}"]
    if not hosts:
        named = [one for one in sources if one not in usual]
        if not named:
            return [say]
        missing = [one for one in named if "," not in one and not Path(one).exists()]
        if missing:
            return [f"{' and '.join(missing)} does not exist. {say}"]
        return [f"{' and '.join(named)} has no host in group berth. {say}"]
    if not set(hosts) & set(reached):
        return [f"--limit leaves no host of group berth, which has: {', '.join(hosts)}."]
    return []


class LookupModule(LookupBase):  # type: ignore[misc]
    """Used in a play as lookup('which_environment')."""

    def run(self, _terms: list[str], variables: Mapping[str, Any] | None = None, **_kwargs: Any) -> list[str]:
        """Return why the run includes no host of group berth; nothing if it does.

        Args:
            variables: The variables of the play.
        """
        known = variables or {}
        folders = sorted(one.parent.name for one in ROOT.glob("inventories/*/hosts.yml"))
        return problems(
            [str(one) for one in known.get("ansible_inventory_sources") or []],
            [str(one) for one in ansible_constants.DEFAULT_HOST_LIST],
            list(known.get("groups", {}).get("berth", [])),
            list(known.get("ansible_play_hosts_all", [])),
            folders,
        )
