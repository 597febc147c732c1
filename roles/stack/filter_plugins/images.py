"""Which images a host lacks, and which are not for it."""

from __future__ import annotations

import json
import re
from typing import Any

# What the kernel calls an architecture, and what Docker does.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def _by_name(inspected: str) -> dict[str, tuple[Any, ...]]:
    """Map each name in the output of `docker image inspect` to what identifies its content.

    Ids are no good for that: two engines may give the same image different ones.
    """
    return {
        # An image without layers or a date has no such fields.
        name: (image.get("Created", ""), tuple(image["RootFS"].get("Layers") or []))
        for image in json.loads(inspected or "[]")
        for name in image["RepoTags"] or []
    }


def images_absent(wanted: list[str], inspected: str) -> list[str]:
    """Return the wanted images that `docker image inspect` did not show."""
    present = _by_name(inspected)
    return [name for name in wanted if name not in present]


def images_that_differ(wanted: list[str], here: str, there: str) -> list[str]:
    """Return the wanted images that are missing there or have other content than here."""
    ours, theirs = _by_name(here), _by_name(there)
    return [name for name in wanted if ours[name] != theirs.get(name)]


def images_not_built_from(wanted: list[str], inspected: str, sources: str) -> list[str]:
    """Return the wanted images that `docker image inspect` did not show to be built from these sources."""
    built = {
        name
        for image in json.loads(inspected or "[]")
        if (image["Config"].get("Labels") or {}).get("berth.sources") == sources
        for name in image["RepoTags"] or []
    }
    return [name for name in wanted if name not in built]


def images_for_rehearsal(inspected: str) -> list[str]:
    """Return the images that `docker image inspect` shows to be built from packages, on this machine and for it."""
    return [
        name
        for image in json.loads(inspected or "[]")
        if (image["Config"].get("Labels") or {}).get("berth.images") == "packages"
        for name in image["RepoTags"] or []
    ]


def docker_architecture(machine: str) -> str:
    """Return what Docker calls an architecture that the kernel names."""
    return ARCHITECTURES.get(machine, machine)


def images_of_another_architecture(inspected: str, machine: str) -> dict[str, list[str]]:
    """Map each architecture but the host's to those images that `docker image inspect` shows to be built for it."""
    others: dict[str, list[str]] = {}
    for image in json.loads(inspected or "[]"):
        built_for = image.get("Architecture", "")
        if built_for and built_for != docker_architecture(machine):
            others.setdefault(built_for, []).extend(image["RepoTags"] or [])
    return {built_for: names for built_for, names in others.items() if names}


def images_to_pull(wanted: list[str], inspected: str, machine: str) -> list[str]:
    """Return the wanted images that `docker image inspect` did not show, or not for this architecture."""
    others = images_of_another_architecture(inspected, machine).values()
    return sorted({*images_absent(wanted, inspected), *(name for names in others for name in names if name in wanted)})


def registry_of(prefix: str) -> str:
    """Return the registry that Docker takes a prefix of image names to mean."""
    first = prefix.partition("/")[0]
    return first if first == "localhost" or re.search("[.:]", first) else "docker.io"


def pull_advice(words: str, machine: str) -> str:
    """Return what helps where a pull failed with these words of Docker's; empty where nothing is known to."""
    if re.search("no matching manifest|does not match the (specified|detected)", words):
        return (
            f"There is none for this host's architecture, {docker_architecture(machine)}: build and push it for "
            f"linux/{docker_architecture(machine)} (in this project: PLATFORM=linux/{docker_architecture(machine)})."
        )
    if re.search("no basic auth|unauthorized|authentication required|denied|forbidden", words, re.IGNORECASE):
        return (
            "The registry has no such image for whoever asks like that: check its name, and the account in "
            "stack_registry_username and stack_registry_password (in this project: berth_registry_username and "
            "vault_registry_password)."
        )
    if re.search("manifest unknown|not found|no such manifest", words, re.IGNORECASE):
        return "The registry has no such image: push it first (in this project: images/build.py app --push)."
    if re.search("x509|certificate", words):
        return "The host does not know the registry's authority: put it into /etc/docker/certs.d/<registry>/ca.crt."
    return ""


def databases_to_upgrade(lines: list[str], wanted: dict[str, str]) -> bool:
    """Tell from `docker ps` whether a database runs another image than wanted, or an upgrade was left unfinished.

    An image that its name no longer means is shown by its id.
    """
    running = dict(line.split() for line in lines if " " in line)
    differs = [name for name, image in wanted.items() if running.get(f"berth-{name}-1", image) != image]
    return bool(differs) or "unfinished" in lines


class FilterModule:
    """Filters of role stack."""

    def filters(self) -> dict[str, object]:
        """Name the filters for Ansible."""
        return {
            "databases_to_upgrade": databases_to_upgrade,
            "docker_architecture": docker_architecture,
            "images_absent": images_absent,
            "images_for_rehearsal": images_for_rehearsal,
            "images_not_built_from": images_not_built_from,
            "images_of_another_architecture": images_of_another_architecture,
            "images_that_differ": images_that_differ,
            "images_to_pull": images_to_pull,
            "pull_advice": pull_advice,
            "registry_of": registry_of,
        }
