"""Commands of operators: the next one to type, with the inventory of this run, and one to run on the host."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def inventory_named(sources: Iterable[str]) -> str:
    """Return the -i options, as typed in the project's root folder.

    Args:
        sources: ansible_inventory_sources: absolute paths, or lists of hosts with a comma.
    """
    return " ".join(f"-i {shlex.quote(_from_root(str(one)))}" for one in sources)


def next_command(playbook: str, sources: Iterable[str], *words: str) -> str:
    """Return the command that runs a playbook, such as ansible/rollback.yml, with the inventory of this run.

    Args:
        playbook: Its path in the project.
        sources: ansible_inventory_sources.
        words: Further arguments, such as -e to=1.3.9; quoted where needed.
    """
    return " ".join(["ansible-playbook", playbook, inventory_named(sources), *map(shlex.quote, words)]).strip()


def shell_words(command: str) -> list[str]:
    """Return the words of a command as a shell reads them, for a host without one; none where a quote is not closed."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _from_root(source: str) -> str:
    place = Path(source)
    return str(place.relative_to(ROOT)) if "," not in source and place.is_relative_to(ROOT) else source


class FilterModule:
    """Loaded by Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {"inventory_named": inventory_named, "next_command": next_command, "shell_words": shell_words}
