"""Parsers for the output of docker, systemctl, nft and apt-get.

Callers run the commands, because they treat failures differently: metrics report them, a release tries again.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "UnitFileState", "ConditionResult", "RemainAfterExit", "Restart", "Wants"),
    *("Result", "ExecMainExitTimestamp"),
)
_LABELS = (f'{{{{.Label "com.docker.compose.{label}"}}}}' for label in ("project", "service", "oneoff"))
_CONTAINER = "|".join(["{{.Names}}", "{{.State}}", "{{.Status}}", "{{.Networks}}", *_LABELS])
# Containers of compose projects only.
LIST_CONTAINERS = ("docker", "ps", "--all", "--filter=label=com.docker.compose.project", "--format", _CONTAINER)
# Without --all a pattern matches active units only.
SHOW_UNITS = ("systemctl", "show", "--all", "--timestamp=unix", f"--property={','.join(_PROPERTIES)}")
LIST_FAILED = ("systemctl", "list-units", "--all", "--state=failed", "--plain", "--no-legend")
LIST_TABLES = ("nft", "list", "tables")


@dataclass(frozen=True)
class Container:
    name: str
    project: str
    service: str
    # One word: running, exited.
    state: str
    # For people: Exited (137) 2 minutes ago.
    status: str
    networks: tuple[str, ...]

    @property
    def health(self) -> str:
        """The result of its health check: healthy, starting or unhealthy; without a health check, its state."""
        found = re.search(r"\((?:health: )?(healthy|unhealthy|starting)\)", self.status)
        return found[1] if found else self.state


def containers(listed: str) -> list[Container]:
    """Parse the output of LIST_CONTAINERS, leaving out one-off containers (`compose run`)."""
    found = []
    for line in listed.splitlines():
        name, state, status, networks, project, service, oneoff = line.split("|")
        if oneoff != "True":
            found.append(Container(name, project, service, state, status, tuple(networks.split(","))))
    return found


def units(shown: str) -> dict[str, dict[str, str]]:
    """Parse the output of SHOW_UNITS: unit -> its properties; missing ones are empty."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.split("\n\n")]
    return {block["Id"]: dict.fromkeys(_PROPERTIES, "") | block for block in blocks if block.get("Id")}


def is_active(unit: dict[str, str]) -> bool:
    """Tell whether a unit is active; reloading and activating count, too: if they fail, the next look shows it."""
    return unit["ActiveState"] in ("active", "activating", "reloading")


def first_words(listed: str) -> list[str]:
    return [line.split()[0] for line in listed.splitlines() if line.strip()]


def tables(listed: str) -> set[str]:
    """Parse the output of LIST_TABLES: names such as inet berth."""
    return set(re.findall(r"^table (\S+ \S+)", listed, re.MULTILINE))


def upgrades(simulated: str) -> Counter[tuple[str, str]]:
    """Count pending upgrades by origin and architecture, written as the apt script for node_exporter writes them."""
    found: Counter[tuple[str, str]] = Counter()
    for line in simulated.splitlines():
        # Inst openssl [3.5.1-1] (3.5.4-1 Debian:13.2/stable, Debian-Security:13/stable-security [amd64]) []
        if candidate := re.match(r"Inst [^(]*\(\S+ ?(.*?) \[([\w-]+)\]\)", line):
            found[candidate[1].replace(" ", ""), candidate[2]] += 1
    return found


def security_updates(simulated: str) -> int:
    return sum(count for (origin, _), count in upgrades(simulated).items() if "security" in origin.lower())


def is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
