"""Which images a host lacks."""

from __future__ import annotations

import json
from typing import Any


def _by_name(inspected: str) -> dict[str, tuple[Any, ...]]:
    """Map each name in the output of `docker image inspect` to what identifies its content.

    Ids are no good for that: two engines may give the same image different ones.
    """
    return {
        name: (image["Created"], tuple(image["RootFS"]["Layers"]))
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
            "images_absent": images_absent,
            "images_for_rehearsal": images_for_rehearsal,
            "images_not_built_from": images_not_built_from,
            "images_that_differ": images_that_differ,
        }
