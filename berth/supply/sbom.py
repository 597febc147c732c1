"""Software bills of materials, CycloneDX 1.6: what each image of a release contains, read from the image itself."""

from __future__ import annotations

import json
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from berth import __version__
from berth.host import clock, commands, files
from berth.host.refused import Refused
from berth.supply import packages
from berth.supply.identity import identity

SUFFIX = ".cdx.json"
IDENTITY = "berth:image:identity"


def document(name: str, image: dict[str, Any]) -> dict[str, Any]:
    """Read an image on this engine.

    Args:
        name: Its name.
        image: What `docker image inspect` says of it.

    Returns:
        The SBOM, a CycloneDX document. The same image gives the same serial number.

    Raises:
        Refused: Docker cannot export the image.
    """
    known, contents = identity(image), _contents(name)
    components = []
    for one in contents.packages:
        purl = one.purl(contents.distribution)
        component = {"type": "library", "bom-ref": purl, "name": one.name, "version": one.version, "purl": purl}
        components.append({**component, **({"group": one.namespace} if one.namespace else {})})
    if contents.distribution:
        system, _, version = contents.distribution.partition("-")
        components.append(
            {"type": "operating-system", "bom-ref": f"os:{contents.distribution}", "name": system}
            | ({"version": version} if version else {})
        )
    repository, _, tag = name.rpartition(":")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, f'{name} {known}')}",
        "version": 1,
        "metadata": {
            "timestamp": clock.now(),
            "tools": {"components": [{"type": "application", "name": "berth", "version": __version__}]},
            "component": {
                "type": "container",
                "bom-ref": name,
                "name": repository or name,
                "version": tag or "latest",
                "properties": [{"name": IDENTITY, "value": known}, {"name": "berth:image:id", "value": image["Id"]}],
            },
        },
        "components": components,
    }


def _contents(name: str) -> packages.Contents:
    # A container that is never started: its command does not matter, and an image without one needs it.
    created = commands.run("docker", "create", "--network=none", "--entrypoint=/none", name, "/none")
    if created.returncode:
        raise Refused(f"Docker cannot read image {name}: {created.stderr.strip()}")
    container = created.stdout.strip()
    try:
        with commands.start("docker", "export", container) as export, commands.killed_on_error(export):
            stream = cast(IO[bytes], export.stdout)
            with tarfile.open(fileobj=stream, mode="r|") as exported:
                contents = packages.read(exported)
            # Padding after the end of the archive.
            while stream.read(2**20):
                pass
            if code := export.wait():
                raise OSError(f"exit status {code}")
            return contents
    except (tarfile.TarError, OSError) as error:
        raise Refused(f"Docker did not export image {name}: {error}.") from error
    finally:
        commands.run("docker", "rm", "--force", "--volumes", container)


# --- kept on the host ---


@dataclass(frozen=True)
class Kept:
    """The SBOMs of a host: of each release that it keeps, and of what outlives releases."""

    root: Path

    def folder(self, release: str) -> Path:
        """Return the folder of a release; of the platform, if that is empty."""
        return self.root / "releases" / release / "sbom" if release else self.root / "sbom"

    def record(self, release: str, images: dict[str, dict[str, Any]]) -> list[str]:
        """Write the SBOMs that are missing or of another image; remove others. Return the names of those written.

        Args:
            release: Whose they are; empty: the platform's.
            images: Name -> what `docker image inspect` says.

        Raises:
            Refused: Docker cannot export an image.
            OSError: the disk is full.
        """
        folder, written = self.folder(release), []
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {folder / _file_of(name): name for name in images}
        for place in folder.iterdir():
            if place not in wanted:
                place.unlink()
        for place, name in wanted.items():
            known = identity(images[name])
            if (there := _read(place)) and (name, known) == (name_of(there), _identity(there)):
                continue
            bom = self._of_same_image(name, known) or document(name, images[name])
            files.write(place, json.dumps(bom, indent=1) + "\n")
            written.append(name)
        return written

    def _of_same_image(self, name: str, known: str) -> dict[str, Any] | None:
        """Return the SBOM of the same image in another release, under this name."""
        for _, bom in self.all():
            if _identity(bom) == known and name_of(bom) == name:
                return bom
        return None

    def all(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield release (empty: the platform) and SBOM."""
        for place in sorted([*self.root.glob("releases/*/sbom/*"), *self.root.glob("sbom/*")]):
            if place.name.endswith(SUFFIX) and (bom := _read(place)):
                yield (place.parent.parent.name if place.parent.parent.parent.name == "releases" else ""), bom


def _file_of(name: str) -> str:
    """Return the file name for an image; names differ before their tags, and tags with their releases."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name) + SUFFIX


def _read(place: Path) -> dict[str, Any] | None:
    try:
        return files.read_json(place)
    except ValueError:
        # Cut short by a power failure.
        return None


def name_of(bom: dict[str, Any]) -> str:
    return str(bom["metadata"]["component"]["bom-ref"])


def _identity(bom: dict[str, Any]) -> str:
    properties = bom["metadata"]["component"]["properties"]
    return next((str(one["value"]) for one in properties if one["name"] == IDENTITY), "")


@dataclass(frozen=True)
class Found:
    """A package in an image of a release."""

    release: str
    image: str
    package: packages.Package


def find(boms: Iterator[tuple[str, dict[str, Any]]], wanted: str) -> Iterator[Found]:
    """Yield packages with this name, or from a source package with this name; upper and lower case are the same."""
    asked = wanted.lower()
    for release, bom in boms:
        for component in bom["components"]:
            package = packages.from_purl(component.get("purl", ""))
            if package and asked in (package.name.lower(), package.source.lower(), _full(package).lower()):
                yield Found(release, name_of(bom), package)


def _full(package: packages.Package) -> str:
    return f"{package.namespace}/{package.name}"
