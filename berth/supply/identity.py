"""Which image it is, whatever engine holds it."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from berth.host.refused import Refused

# What decides how a container of the image runs; the layers decide what runs.
BEHAVIOUR = (
    *("User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "Healthcheck"),
    *("StopSignal", "Shell", "OnBuild"),
)
# Its name in the digests of a statement.
ALGORITHM = "berthImageV1"


def identity(image: dict[str, Any]) -> str:
    """Return the SHA-256 of an image's platform, layers and settings, in hexadecimal digits.

    Image ids cannot be compared: an engine with containerd's image store gives the same image another id. The digests
    of layers are those of their contents, which each engine verifies when it loads or pulls them.

    Args:
        image: An object of `docker image inspect`, or the config of an image (OCI image specification), which have
            the same fields under other names.
    """
    config = image.get("Config") or image.get("config") or {}
    root = image.get("RootFS") or image.get("rootfs") or {}
    what = {
        "os": image.get("Os") or image.get("os") or "",
        "architecture": image.get("Architecture") or image.get("architecture") or "",
        "layers": root.get("Layers") or root.get("diff_ids") or [],
        # Engines differ in whether they write empty fields.
        "config": {name: config[name] for name in BEHAVIOUR if config.get(name)},
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def in_archive(file: Path) -> dict[str, str]:
    """Return name -> identity of the images in an archive of `docker save`.

    Raises:
        Refused: it is no such archive, or an image in it has no name.
    """
    found: dict[str, str] = {}
    try:
        with tarfile.open(file) as archive:
            for image in json.load(_member(archive, "manifest.json")):
                known = identity(json.load(_member(archive, image["Config"])))
                if not image.get("RepoTags"):
                    raise Refused(f"{file} holds an image without a name.")
                found |= dict.fromkeys(image["RepoTags"], known)
            _refuse_other_names(archive, file, set(found))
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{file} is no archive of images: {error}.") from error
    return found


def _refuse_other_names(archive: tarfile.TarFile, file: Path, known: set[str]) -> None:
    """Refuse names that manifest.json lacks: other engines read the other two lists of the archive."""
    members = archive.getnames()
    if len(members) != len(set(members)):
        raise Refused(f"{file} holds a file twice, and which one an engine reads is not known.")
    listed: set[str] = set()
    if "repositories" in members:
        for name, tags in json.load(_member(archive, "repositories")).items():
            listed |= {f"{name}:{tag}" for tag in tags}
    if "index.json" in members:
        for manifest in json.load(_member(archive, "index.json"))["manifests"]:
            listed.add((manifest.get("annotations") or {}).get("io.containerd.image.name") or min(known))
    if unknown := listed - known:
        raise Refused(f"{file} names {', '.join(sorted(unknown))} only where some engines look.")


def _member(archive: tarfile.TarFile, name: str):  # type: ignore[no-untyped-def]  # tarfile's own type is private
    found = archive.extractfile(name)
    if found is None:
        raise KeyError(name)
    return found
