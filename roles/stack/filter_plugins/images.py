"""Filters that compare images: which ones a host lacks, and which ones are not for it."""

from __future__ import annotations

import json
import re
from typing import Any

# The kernel's name of an architecture -> Docker's.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def _by_name(inspected: str) -> dict[str, tuple[Any, ...]]:
    """Map each name in the output of `docker image inspect` to its date and layers.

    Ids cannot be compared: two engines may give the same image different ids.
    """
    return {
        # An image without layers or date lacks these fields.
        name: (image.get("Created", ""), tuple(image["RootFS"].get("Layers") or []))
        for image in json.loads(inspected or "[]")
        for name in image["RepoTags"] or []
    }


def images_absent(wanted: list[str], inspected: str) -> list[str]:
    """Return the wanted images that are not in the output of `docker image inspect`."""
    present = {*_by_name(inspected), *_digests(inspected)}
    # Docker knows an image that was pulled by its digest without a tag.
    return [name for name in wanted if re.sub(r":[^:/@]+@", "@", name) not in present]


def _digests(inspected: str) -> set[str]:
    return {name for image in json.loads(inspected or "[]") for name in image.get("RepoDigests") or []}


def images_that_differ(wanted: list[str], here: str, there: str) -> list[str]:
    """Return the wanted images that are missing or different on the host."""
    ours, theirs = _by_name(here), _by_name(there)
    return [name for name in wanted if ours[name] != theirs.get(name)]


def images_not_built_from(wanted: list[str], inspected: str, sources: str) -> list[str]:
    """Return the wanted images that are not labelled as built from these sources."""
    built = {
        name
        for image in json.loads(inspected or "[]")
        if (image["Config"].get("Labels") or {}).get("berth.sources") == sources
        for name in image["RepoTags"] or []
    }
    return [name for name in wanted if name not in built]


def stand_in_images(inspected: str) -> list[str]:
    """Return the stand-in images: those labelled as built from packages, which are for this machine only."""
    return [
        name
        for image in json.loads(inspected or "[]")
        if (image["Config"].get("Labels") or {}).get("berth.images") == "packages"
        for name in image["RepoTags"] or []
    ]


def docker_architecture(machine: str) -> str:
    """Return Docker's name of an architecture."""
    return ARCHITECTURES.get(machine, machine)


def images_of_another_architecture(inspected: str, machine: str) -> dict[str, list[str]]:
    """Map each architecture other than the host's to its images in the output of `docker image inspect`."""
    others: dict[str, list[str]] = {}
    for image in json.loads(inspected or "[]"):
        built_for = image.get("Architecture", "")
        if built_for and built_for != docker_architecture(machine):
            others.setdefault(built_for, []).extend(image["RepoTags"] or [])
    return {built_for: names for built_for, names in others.items() if names}


def images_to_pull(wanted: list[str], inspected: str, machine: str) -> list[str]:
    """Return the wanted images that are missing or for another architecture."""
    others = images_of_another_architecture(inspected, machine).values()
    return sorted({*images_absent(wanted, inspected), *(name for names in others for name in names if name in wanted)})


def registry_of(prefix: str) -> str:
    """Return the registry in a prefix of image names, as Docker reads it."""
    first = prefix.partition("/")[0]
    return first if first == "localhost" or re.search("[.:]", first) else "docker.io"


def pull_advice(words: str, machine: str) -> str:
    """Return a remedy for Docker's message of a failed pull; empty if none is known."""
    if re.search("no matching manifest|does not match the (specified|detected)", words):
        return (
            f"There is none for this host's architecture, {docker_architecture(machine)}: build and push it for "
            f"linux/{docker_architecture(machine)} (in this project: PLATFORM=linux/{docker_architecture(machine)})."
        )
    if re.search("no basic auth|unauthorized|authentication required|denied|forbidden", words, re.IGNORECASE):
        return (
            "The registry has no such image, or this account may not pull it: check its name, and the account in "
            "stack_registry_username and stack_registry_password (in this project: berth_registry_username and "
            "vault_registry_password)."
        )
    if re.search("manifest unknown|not found|no such manifest", words, re.IGNORECASE):
        return "The registry has no such image: push it first (in this project: images/build.py app --push)."
    if re.search("x509|certificate", words):
        return (
            "The host does not trust the registry's CA: put its certificate into /etc/docker/certs.d/<registry>/ca.crt."
        )
    return ""


def databases_upgraded(platform: dict[str, str]) -> dict[str, str]:
    """Return those of the platform's services that Berth upgrades; compose replaces the others."""
    return {name: image for name, image in platform.items() if name in ("mongo", "redis")}


def databases_to_upgrade(lines: list[str], platform: dict[str, str]) -> bool:
    """Tell from `docker ps` whether a database runs another image than wanted, or an upgrade was left unfinished.

    `docker ps` shows an image by its id if its name now belongs to another image.
    """
    running = dict(line.split() for line in lines if " " in line)
    wanted = databases_upgraded(platform)
    differs = [name for name, image in wanted.items() if running.get(f"berth-{name}-1", image) != image]
    return bool(differs) or "unfinished" in lines


class FilterModule:
    """Filters of role stack."""

    def filters(self) -> dict[str, object]:
        """Return the filters by their names."""
        return {
            "databases_to_upgrade": databases_to_upgrade,
            "databases_upgraded": databases_upgraded,
            "docker_architecture": docker_architecture,
            "images_absent": images_absent,
            "stand_in_images": stand_in_images,
            "images_not_built_from": images_not_built_from,
            "images_of_another_architecture": images_of_another_architecture,
            "images_that_differ": images_that_differ,
            "images_to_pull": images_to_pull,
            "pull_advice": pull_advice,
            "registry_of": registry_of,
        }
