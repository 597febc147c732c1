"""Say what is wrong with the environment that a playbook was given: none is the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ansible.constants as ansible_constants

from ansible.plugins.lookup import LookupBase  # type: ignore[attr-defined]  # not the folder here

DOCUMENTATION = """
name: which_environment
short_description: Say which environment is missing, in one sentence
description: Takes no terms. Nothing is wrong where the run reaches a host of group berth.
options: {}
"""

ROOT = Path(__file__).resolve().parents[3]


def problems(
    sources: Sequence[str], usual: Sequence[str], hosts: Sequence[str], reached: Sequence[str], folders: Sequence[str]
) -> list[str]:
    """Say why a run reaches no host of group berth.

    Args:
        sources: Inventories that the run was given.
        usual: Those that Ansible takes where none is given.
        hosts: Hosts of group berth.
        reached: Hosts that the run is limited to.
        folders: Environments that there are.

    Returns:
        One sentence, or none.
    """
    say = f"Say which environment: -i inventories/production (there are: {', '.join(folders)})."
    if several := [one for one in sources if any(Path(one).glob("*/hosts.yml"))]:
        return [f"{' and '.join(several)} holds several environments. {say}"]
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
    """Ask from a play with lookup('which_environment')."""

    def run(self, _terms: list[str], variables: Mapping[str, Any] | None = None, **_kwargs: Any) -> list[str]:
        """Return why the run reaches no host of group berth; nothing where it does.

        Args:
            variables: What Ansible knows in the play.
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
