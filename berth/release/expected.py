"""What should be there and is not: containers, units, networks, tables of the firewall, and what containers mount.

What should be there is read from what the roles have written on this host, so that nothing is named twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from berth.host import commands, system
from berth.host.commands import last_lines
from berth.host.live import Live
from berth.host.refused import Refused
from berth.host.system import Container
from berth.release.settings import Settings
from berth.stack.description import PROFILE
from berth.stack.kept import FILE, compose

UNITS = Path("/etc/systemd/system")
TABLES = Path("/etc/nftables.d")
# What Berth needs of others.
FOREIGN_UNITS = ("docker.service", "ssh.service", "nftables.service")
# Where files are that a boot makes anew.
RUNTIME = Path("/run")
WELL = ("healthy", "starting", "running")
# How the program that asks names the inventory; on the host nobody knows.
INVENTORY = "inventories/<env>"


def playbook(name: str, *words: str) -> str:
    place = "site.yml" if name == "site" else f"ansible/{name}.yml"
    return " ".join(["ansible-playbook", place, "-i", INVENTORY, *words])


def state_of(container: Container) -> str:
    """Return its health, or what Docker says of one that does not run."""
    return container.health if container.health in (*WELL, "unhealthy") else container.status


def missing(settings: Settings, live: Live | None, containers: list[Container] | None) -> list[dict[str, str]]:
    """Say of all that should be there and is not what it is and what brings it back. No containers: Docker is down."""
    units = _units()
    if containers is None:
        down = any("docker.service" in lack["what"] for lack in units)
        first = [] if down else [_lack("Docker does not answer", "sudo systemctl restart docker.service")]
    else:
        try:
            first = _of_the_engine(settings, live, containers)
        except Refused as unread:
            first = [_lack(unread.reason, playbook("provision"))]
    return first + _tables(settings) + units


def _lack(what: str, fix: str) -> dict[str, str]:
    return {"what": what, "fix": fix}


# --- containers, their networks and their secrets ---


def _of_the_engine(settings: Settings, live: Live | None, containers: list[Container]) -> list[dict[str, str]]:
    again = ("-e", f"release={live.release}") if live else ()
    there = {(one.project, one.service): one for one in containers}
    platform = _platform(settings)
    lacks, used = [], {}
    networks = {key: network["name"] for key, network in platform.get("networks", {}).items()}
    for service in _chosen(settings, platform, there):
        used[("berth", service)] = platform["services"][service]
        back = playbook("provision", "--tags", "traefik") if _aliases(platform, service) else playbook("upgrade_data")
        lacks += _lack_of(there.get(("berth", service)), service, back)
    if live:
        project = f"berth-{live.colour}"
        release = _compose(settings, settings.kept(live.release).compose_file, project, PROFILE, live)
        networks |= {key: network["name"] for key, network in release.get("networks", {}).items()}
        for service, wanted in release["services"].items():
            used[(project, service)] = wanted
            lacks += _lack_of(there.get((project, service)), f"{service} ({live.colour})", playbook("release", *again))
    watching = settings.root / "monitoring/compose.yml"
    if watching.exists():
        config = _config("docker", "compose", f"--file={watching}")
        for service in config["services"]:
            back = playbook("provision", "--tags", "monitoring")
            lacks += _lack_of(there.get((config["name"], service)), f"{service} (monitoring)", back)
    gone = set(networks.values()) - set(commands.run("docker", "network", "ls", "--format={{.Name}}").stdout.split())
    lacks += [_lack(f"network {name} is MISSING", playbook("provision", "--tags", "stack")) for name in sorted(gone)]
    joined = {key: name for key, name in networks.items() if name not in gone}
    return lacks + _connections(used, joined, there) + _mounts(used, there)


def _connections(
    used: dict[tuple[str, str], Any], networks: dict[str, str], there: dict[tuple[str, str], Container]
) -> list[dict[str, str]]:
    """A network that was removed and made again has none of those that were in it."""
    lacks = []
    for key, service in used.items():
        container = there.get(key)
        for network, options in (service.get("networks") or {}).items():
            name = networks.get(network)
            if container is None or container.health not in WELL or name is None or name in container.networks:
                continue
            words = [f"--alias {alias}" for alias in [key[1], *((options or {}).get("aliases") or [])]]
            words += [
                f"{option} {options[field]}"
                for option, field in (("--ip", "ipv4_address"), ("--ip6", "ipv6_address"))
                if (options or {}).get(field)
            ]
            fix = f"sudo docker network connect {' '.join(words)} {name} {container.name}"
            lacks.append(_lack(f"container {key[1]} is not in network {name}", fix))
    return lacks


def _platform(settings: Settings) -> dict[str, Any]:
    """Return what outlives releases: the application's databases, and the edge."""
    found = _compose(settings, settings.root / FILE, "berth", "platform")
    # Before it had a file of its own, the edge was in the application's.
    if (file := settings.root / "docker-compose.edge.yml").exists():
        edge = _compose(settings, file, "berth", "platform")
        for part in ("services", "networks"):
            found[part] = found.get(part, {}) | edge.get(part, {})
    return found


def _compose(settings: Settings, file: Path, project: str, profile: str, live: Live | None = None) -> dict[str, Any]:
    root = settings.root
    chosen = {"RELEASE": live.release if live else "-", "COLOUR": live.colour if live else "-"}
    config = _config(*compose(root, file, project), f"--profile={profile}", **chosen)
    # Those without a profile are none of it.
    config["services"] = {name: one for name, one in config["services"].items() if profile in one.get("profiles", [])}
    return config


def _config(*command: str, **chosen: str) -> dict[str, Any]:
    done = commands.run(*command, "config", "--format=json", seconds=60, **chosen)
    if done.returncode:
        file = next(word.removeprefix("--file=") for word in command if word.startswith("--file="))
        raise Refused(f"{file} cannot be read: {' '.join(last_lines(done)[-1:])}")
    return dict(json.loads(done.stdout))


def _aliases(platform: dict[str, Any], service: str) -> list[str]:
    networks = platform["services"][service].get("networks") or {}
    return [alias for one in networks.values() for alias in (one or {}).get("aliases") or []]


def _chosen(settings: Settings, platform: dict[str, Any], there: dict[tuple[str, str], Container]) -> list[str]:
    """Return the platform's services that should run here.

    Of those that answer to the same name only one is needed: the edge that new connections are led to.
    """
    rules = settings.edge / "edge.nft"
    serving = re.search(r"^# serving: (\S+)", rules.read_text(), re.MULTILINE) if rules.exists() else None
    alternatives: dict[str, list[str]] = {}
    for service in platform["services"]:
        if service not in settings.managed:
            alternatives.setdefault(" ".join(_aliases(platform, service)) or service, []).append(service)
    chosen = []
    for services in alternatives.values():
        led = [one for one in services if serving and one.endswith(f"_{serving[1]}")]
        running = [one for one in services if ("berth", one) in there]
        chosen.append((led or running or services)[0])
    return chosen


def _lack_of(container: Container | None, called: str, back: str) -> list[dict[str, str]]:
    if container is None:
        return [_lack(f"container {called} is MISSING", back)]
    if container.health not in WELL:
        return [_lack(f"container {called} is {state_of(container)}", f"sudo docker restart {container.name}")]
    return []


def _mounts(used: dict[tuple[str, str], Any], there: dict[tuple[str, str], Container]) -> list[dict[str, str]]:
    """What services read from the host: whole directories, which are empty or gone after an accident."""
    empty, names, others = [], [], []
    for key, service in used.items():
        for volume in service.get("volumes") or []:
            source = Path(volume.get("source", ""))
            if volume.get("type") != "bind" or _has_something(source):
                continue
            if source.is_relative_to(RUNTIME):
                empty.append(str(source))
                names += [there[key].name] if key in there else []
            else:
                others.append(str(source))
    fix = "sudo systemctl restart berth-secrets" + (f" && sudo docker restart {' '.join(names)}" if names else "")
    lacks = [_lack(f"secrets in {place} are MISSING", fix) for place in empty]
    return lacks + [_lack(f"{place} is MISSING", playbook("provision")) for place in dict.fromkeys(others)]


def _has_something(place: Path) -> bool:
    if place.is_dir() and place.is_relative_to(RUNTIME):
        return system.is_filled(place)
    # What the edge keeps certificates in is empty at first.
    return place.exists()


# --- units ---


def _units() -> list[dict[str, str]]:
    """Whatever of Berth's is enabled, and what its targets want, is to be active; a job that has ended well is, too."""
    enabled = {link.name for link in UNITS.glob("*.wants/berth-*")}
    shown = show([*sorted(enabled), *FOREIGN_UNITS, "ssh.socket"])
    wanted = {
        unit
        for name, unit_shown in shown.items()
        if name.startswith("berth-") and name.endswith(".target")
        for unit in unit_shown["Wants"].split()
        if unit.startswith("berth-")
    }
    shown |= show(sorted(wanted - set(shown)))
    # Where sshd is started for each connection, its socket is what listens.
    if shown.pop("ssh.socket", {}).get("ActiveState") == "active":
        shown.pop("ssh.service", None)
    lacks = []
    for name, unit in shown.items():
        if unit["LoadState"] != "loaded":
            lacks.append(_lack(f"unit {name} is MISSING", playbook("provision")))
        elif unit["ActiveState"] == "failed" or (not system.is_active(unit) and _is_to_stay(name, unit)):
            lacks.append(_lack(f"unit {name} is {unit['ActiveState']}", f"sudo systemctl restart {name}"))
    return lacks


def _is_to_stay(name: str, unit: dict[str, str]) -> bool:
    """Tell whether a unit stays active: all but a service that ends by itself, though it may be tried again."""
    if not name.endswith(".service") or name in FOREIGN_UNITS:
        return True
    return unit["RemainAfterExit"] == "yes" or unit["Restart"] == "always"


def show(units: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return unit -> its properties, as systemd knows them."""
    names = list(units)
    # Without a name systemd would tell of itself.
    return system.units(commands.run(*system.SHOW_UNITS, *names).stdout) if names else {}


# --- the firewall ---


def _tables(settings: Settings) -> list[dict[str, str]]:
    files = dict.fromkeys(sorted(TABLES.glob("*.nft")), "sudo systemctl restart nftables")
    files[settings.edge / "edge.nft"] = "sudo systemctl restart berth-edge"
    wanted = {
        table: fix
        for place, fix in files.items()
        if place.exists()
        for table in re.findall(r"^table (\w+ \w+) \{", place.read_text(), re.MULTILINE)
    }
    there = system.tables(commands.run(*system.LIST_TABLES).stdout)
    return [_lack(f"nftables table {name} is MISSING", fix) for name, fix in wanted.items() if name not in there]
