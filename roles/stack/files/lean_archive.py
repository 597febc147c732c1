"""Remove those layers from an archive of images that the other engine has: it does not need them to load the images.

usage: lean_archive.py ARCHIVE < one JSON list of layers for each image on the other engine
Prints the new size in bytes.
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path


def layers_to_send(archive: tarfile.TarFile, there: set[tuple[str, ...]]) -> tuple[set[str], set[str]]:
    """Return all layer members, and those that the other engine lacks.

    An engine identifies a layer by its content and all layers below, so these are compared.
    """
    every: set[str] = set()
    lacking: set[str] = set()
    for image in json.load(_member(archive, "manifest.json")):
        layers = json.load(_member(archive, image["Config"]))["rootfs"]["diff_ids"]
        for position, name in enumerate(image["Layers"], start=1):
            every.add(name)
            if tuple(layers[:position]) not in there:
                lacking.add(name)
    return every, lacking


def _member(archive: tarfile.TarFile, name: str):  # type: ignore[no-untyped-def]  # tarfile's own type is private
    found = archive.extractfile(name)
    if found is None:
        raise SystemExit(f"{name} is not in the archive")
    return found


def main(path: Path, lists: str) -> None:
    there = {
        tuple(layers[:position])
        for layers in map(json.loads, lists.splitlines())
        for position in range(1, len(layers) + 1)
    }
    lean = path.with_suffix(".lean")
    with tarfile.open(path) as whole, tarfile.open(lean, "w") as rest:
        every, lacking = layers_to_send(whole, there)
        for member in whole:
            if member.name not in every or member.name in lacking:
                rest.addfile(member, whole.extractfile(member) if member.isreg() else None)
    lean.rename(path)
    print(path.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin.read())
