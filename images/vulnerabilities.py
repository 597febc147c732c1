#!/usr/bin/env python3
"""Check SBOMs against an export of OSV, offline.

usage: vulnerabilities.py --osv FOLDER [--ignore-unfixed] [--json] SBOM...

FOLDER holds advisories in the OSV format (https://ossf.github.io/osv-schema/), as JSON files or as the zip files of an
export, at any depth. Exit status 0: nothing found. 1: found, one line each. 2: nothing could be examined, or bad input:
an ecosystem of the SBOMs without a single advisory is not examined, and is never reported as clean. With
--ignore-unfixed, what has no fixed version yet is counted and does not change the exit status: a gate of a pipeline can
do nothing about it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cmp_to_key
from itertools import zip_longest
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

PROJECT = Path(__file__).resolve().parent.parent
if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))

from berth.supply.packages import Package, from_purl  # noqa: E402  # needs the path

CLEAN, FOUND, NOT_EXAMINED = range(3)
# The type of a package URL -> the ecosystem of OSV.
ECOSYSTEMS = {"deb": "Debian", "apk": "Alpine", "pypi": "PyPI", "npm": "npm", "golang": "Go"}


class InputError(Exception):
    """The input cannot be read or examined; the message says why."""


@dataclass(frozen=True)
class Wanted:
    """A package as OSV names it."""

    ecosystem: str
    name: str
    version: str
    image: str


# --- versions ---


def _debian_order(text: str) -> list[int]:
    """Weigh the characters of a part without digits: ~ before the end, then letters, then others."""
    return [-1 if one == "~" else ord(one) if one.isalpha() else ord(one) + 256 for one in text]


def _compare_debian_part(one: str, other: str) -> int:
    pattern = re.compile(r"(\D*)(\d*)")
    for (text, number), (text2, number2) in zip_longest(
        pattern.findall(one), pattern.findall(other), fillvalue=("", "")
    ):
        for left, right in zip_longest(_debian_order(text), _debian_order(text2), fillvalue=0):
            if left != right:
                return -1 if left < right else 1
        if int(number or 0) != int(number2 or 0):
            return -1 if int(number or 0) < int(number2 or 0) else 1
    return 0


def compare_debian(one: str, other: str) -> int:
    """Compare two versions as dpkg does (deb-version(7)). Return less than, equal to or greater than 0."""

    def parts(version: str) -> tuple[int, str, str]:
        epoch, colon, rest = version.partition(":")
        if not colon:
            epoch, rest = "0", version
        upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
        return int(epoch) if epoch.isdigit() else 0, upstream, revision

    (epoch, upstream, revision), (epoch2, upstream2, revision2) = parts(one), parts(other)
    if epoch != epoch2:
        return -1 if epoch < epoch2 else 1
    return _compare_debian_part(upstream, upstream2) or _compare_debian_part(revision, revision2)


def compare_semantic(one: str, other: str) -> int:
    """Compare two semantic versions (https://semver.org, 11), with or without a leading v."""

    def parts(version: str) -> tuple[list[int], list[str]]:
        core, _, before = version.lstrip("v").partition("+")[0].partition("-")
        return [int(part) if part.isdigit() else 0 for part in core.split(".")], before.split(".") if before else []

    (core, before), (core2, before2) = parts(one), parts(other)
    for left, right in zip_longest(core, core2, fillvalue=0):
        if left != right:
            return -1 if left < right else 1
    if not before or not before2:
        return (not before) - (not before2)
    for part, part2 in zip_longest(before, before2):
        if part == part2:
            continue
        if part is None or part2 is None:
            return -1 if part is None else 1
        if part.isdigit() and part2.isdigit():
            return -1 if int(part) < int(part2) else 1
        if part.isdigit() != part2.isdigit():
            return -1 if part.isdigit() else 1
        return -1 if part < part2 else 1
    return 0


def compare_python(one: str, other: str) -> int:
    """Compare two versions of PyPI (PEP 440). Raises InvalidVersion."""
    left, right = Version(one), Version(other)
    return (left > right) - (left < right)


COMPARE = {
    "Debian": compare_debian,
    "Alpine": compare_debian,
    "PyPI": compare_python,
    "npm": compare_semantic,
    "Go": compare_semantic,
}


# --- advisories ---


def advisories(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the advisories below a folder. Raises InputError where a file is damaged."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. Give the folder of an OSV export.")
    for place in sorted(folder.rglob("*")):
        if place.suffix == ".zip":
            yield from _zipped(place)
        elif place.suffix == ".json":
            yield _advisory(place.read_bytes(), str(place))


def _zipped(place: Path) -> Iterator[dict[str, Any]]:
    try:
        with zipfile.ZipFile(place) as archive:
            for name in archive.namelist():
                if name.endswith(".json"):
                    yield _advisory(archive.read(name), f"{place}: {name}")
    except zipfile.BadZipFile as error:
        raise InputError(f"{place} is damaged: {error}. Download it again.") from error


def _advisory(content: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise InputError(f"{where} is no JSON: {error}. Download it again.") from error
    if not isinstance(found, dict) or "id" not in found:
        raise InputError(f"{where} is no advisory in the OSV format.")
    return found


def is_affected(affected: dict[str, Any], version: str, ecosystem: str) -> bool:
    """Tell whether a version is affected, by the algorithm of the OSV schema ("Evaluation")."""
    if version in (affected.get("versions") or ()):
        return True
    compare = COMPARE[ecosystem]
    return any(
        _in_range(one.get("events") or (), version, compare)
        for one in affected.get("ranges") or ()
        if one.get("type") in ("SEMVER", "ECOSYSTEM")
    )


def _in_range(events: Iterable[dict[str, str]], version: str, compare: Any) -> bool:
    steps = [(kind, limit) for event in events for kind, limit in event.items() if kind in _KINDS]

    def order(one: tuple[str, str], other: tuple[str, str]) -> int:
        if "0" in (one[1], other[1]) and one[1] != other[1]:
            return -1 if one[1] == "0" else 1
        return int(compare(one[1], other[1]))

    affected = False
    for kind, limit in sorted(steps, key=cmp_to_key(order)):
        reached = limit == "0" or compare(version, limit) >= 0
        if kind == "introduced" and reached:
            affected = True
        elif (kind == "fixed" and reached) or (kind == "last_affected" and compare(version, limit) > 0):
            affected = False
    return affected


_KINDS = ("introduced", "fixed", "last_affected")


# --- SBOMs ---


def packages(documents: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Wanted]:
    """Yield the packages of SBOMs as OSV names them. Raises InputError for what is no SBOM."""
    for where, bom in documents:
        if bom.get("bomFormat") != "CycloneDX":
            raise InputError(f"{where} is no CycloneDX SBOM.")
        component = (bom.get("metadata") or {}).get("component") or {}
        image = str(component.get("bom-ref") or component.get("name") or where)
        components = bom.get("components", ())
        systems = [str(one.get("version", "")) for one in components if one.get("type") == "operating-system"]
        for one in components:
            if package := from_purl(one.get("purl", "")):
                yield _wanted(package, systems[0] if systems else "", image)


def _wanted(package: Package, release: str, image: str) -> Wanted:
    ecosystem = ECOSYSTEMS.get(package.kind, package.kind)
    if package.kind in ("deb", "apk"):
        # Advisories of distributions name source packages.
        ecosystem += f":{release}" if package.kind == "deb" else f":v{'.'.join(release.split('.')[:2])}"
        return Wanted(ecosystem, package.source or package.name, package.source_version or package.version, image)
    name = f"{package.namespace}/{package.name}" if package.namespace else package.name
    return Wanted(ecosystem, name, package.version, image)


@dataclass(frozen=True)
class Report:
    """What was examined and found."""

    # Ecosystem -> number of packages.
    examined: dict[str, int]
    not_examined: dict[str, int]
    # One line for each package of an image and advisory.
    found: list[dict[str, str]]
    # Packages whose version the ecosystem's rules cannot read.
    unreadable: list[str]
    # How many were left out of `found`.
    unfixed: int = 0


def check(wanted: Iterable[Wanted], known: Iterable[dict[str, Any]]) -> Report:
    """Compare packages with advisories."""
    by_name: dict[tuple[str, str], list[Wanted]] = defaultdict(list)
    counted: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for one in set(wanted):
        by_name[one.ecosystem, one.name].append(one)
        counted[one.ecosystem].add((one.name, one.version, one.image))
    covered: set[str] = set()
    found: dict[tuple[str, Wanted], dict[str, str]] = {}
    unreadable: set[str] = set()
    for advisory in known:
        for affected in () if advisory.get("withdrawn") else advisory.get("affected") or ():
            package = affected.get("package") or {}
            ecosystem, name = str(package.get("ecosystem", "")), str(package.get("name", ""))
            covered |= {ecosystem, ecosystem.partition(":")[0]}
            for one in _named(by_name, ecosystem, name):
                try:
                    hit = is_affected(affected, one.version, one.ecosystem.partition(":")[0])
                except (InvalidVersion, ValueError):
                    unreadable.add(f"{one.name} {one.version}")
                    continue
                if hit:
                    found[advisory["id"], one] = _line(advisory, one, affected)
    examined = {name: len(those) for name, those in counted.items() if _is_covered(name, covered)}
    missed = {name: len(those) for name, those in counted.items() if name not in examined}
    lines = sorted(found.values(), key=lambda line: (line["image"], line["package"], line["id"]))
    return Report(examined, missed, lines, sorted(unreadable))


def _named(by_name: dict[tuple[str, str], list[Wanted]], ecosystem: str, name: str) -> list[Wanted]:
    if ecosystem == "PyPI":
        name = re.sub(r"[-_.]+", "-", name).lower()
    return by_name.get((ecosystem, name), [])


def _is_covered(ecosystem: str, covered: set[str]) -> bool:
    """Tell whether there are advisories for it. For a distribution, for this version of it."""
    return ecosystem in covered and ecosystem.partition(":")[0] in COMPARE


def _line(advisory: dict[str, Any], one: Wanted, affected: dict[str, Any]) -> dict[str, str]:
    events = [event for span in affected.get("ranges") or () for event in span.get("events") or ()]
    compare = COMPARE[one.ecosystem.partition(":")[0]]
    fixes = [event["fixed"] for event in events if "fixed" in event and compare(one.version, event["fixed"]) < 0]
    aliases = [str(alias) for alias in advisory.get("aliases") or ()]
    summary = str(advisory.get("summary") or advisory.get("details") or "").strip().splitlines()
    return {
        "id": str(advisory["id"]),
        "aliases": " ".join(aliases),
        "package": one.name,
        "version": one.version,
        "image": one.image,
        # Empty where there is none yet.
        "fixed": min(fixes, key=cmp_to_key(compare)) if fixes else "",
        "summary": summary[0][:100] if summary else "",
    }


def documents(places: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the documents in files: an SBOM, or one for each line as `berth sbom list` prints them."""
    for place in places:
        try:
            text = place.read_text(encoding="utf-8")
            if text.startswith('{"release"'):
                for line in text.splitlines():
                    kept = json.loads(line)
                    yield f"{place}: {kept['image']}", kept["sbom"]
            else:
                yield str(place), json.loads(text)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{place} is no SBOM: {error}") from error


def report(places: list[Path], folder: Path) -> Report:
    """Examine SBOMs. Raises InputError where nothing could be examined."""
    wanted = list(packages(documents(places)))
    if not wanted:
        raise InputError("The SBOMs name no package, so nothing was examined.")
    done = check(wanted, advisories(folder))
    if not done.examined:
        raise InputError(
            f"{folder} has no advisory for {', '.join(sorted(done.not_examined))}, so nothing was examined. Download "
            "the export of these ecosystems."
        )
    return done


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--osv", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--ignore-unfixed", action="store_true", help="count what has no fixed version, and do not fail"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("sboms", type=Path, nargs="+", metavar="SBOM")
    arguments = parser.parse_args(argv)
    try:
        done = report(arguments.sboms, arguments.osv)
        if arguments.ignore_unfixed:
            done = without_unfixed(done)
    except InputError as error:
        print(f"vulnerabilities: {error}", file=sys.stderr)
        return NOT_EXAMINED
    if arguments.json:
        print(json.dumps(vars(done)))
    else:
        for line in done.found:
            print(
                "{id}  {package} {version} (fixed: {fixed})  {image}  {summary}".format(
                    **{**line, "fixed": line["fixed"] or "no"}
                )
            )
        print(sentence(done), file=sys.stderr)
    if done.not_examined or done.unreadable:
        return NOT_EXAMINED
    return FOUND if done.found else CLEAN


def without_unfixed(done: Report) -> Report:
    """Count what has no fixed version instead of listing it."""
    fixed = [line for line in done.found if line["fixed"]]
    return replace(done, found=fixed, unfixed=len(done.found) - len(fixed))


def sentence(done: Report) -> str:
    """Say what was examined, and what was not."""

    def counts(those: dict[str, int]) -> str:
        return ", ".join(f"{number} packages of {name}" for name, number in sorted(those.items()))

    said = f"{len(done.found)} found in {counts(done.examined)}."
    if done.unfixed:
        said += f" {done.unfixed} more have no fixed version yet."
    if done.not_examined:
        said += f" NOT examined, as there is no advisory for them: {counts(done.not_examined)}."
    if done.unreadable:
        said += f" NOT examined, as their versions cannot be read: {', '.join(done.unreadable)}."
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
