"""Which SBOMs a host keeps: those of the releases on it, and of the containers that outlive releases."""

from __future__ import annotations

import json
from typing import Any

from berth.host import commands
from berth.host.refused import Refused
from berth.release.settings import Settings
from berth.supply.sbom import Kept

PLATFORM = "berth"


def record(settings: Settings, kept: Kept) -> list[str]:
    """Write the SBOMs that are missing. Return the names of their images.

    Raises:
        Refused: Docker does not answer, or cannot export an image.
        OSError: the disk is full.
    """
    written = kept.record("", _images(_running()))
    for folder in sorted(settings.releases.iterdir()):
        if not folder.is_dir():
            continue
        release = settings.kept(folder.name)
        # One that failed early may have no images on this host.
        if images := _images(list(release.known.images(release.prefix, release.release))):
            written += kept.record(release.release, images)
    return written


def _running() -> list[str]:
    """Return the images of the containers that outlive releases."""
    project = f"--filter=label=com.docker.compose.project={PLATFORM}"
    done = commands.run("docker", "ps", "--all", project, "--format={{.Image}}")
    if done.returncode:
        raise Refused(f"Docker does not answer: {done.stderr.strip()}")
    return sorted(set(done.stdout.split()))


def _images(names: list[str]) -> dict[str, dict[str, Any]]:
    """Return name -> image, of those that are here."""
    found = {}
    for name in names:
        done = commands.run("docker", "image", "inspect", name)
        if done.returncode == 0:
            found[name] = json.loads(done.stdout)[0]
    return found
