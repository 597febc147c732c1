"""berth images and berth sbom.

berth images verify [--archive FILE] [IMAGE...]
    require that signed statements name these images of the engine, or those in an archive, with what is in them.
    Standard input: {"keys": [PEM, ...], "statements": {whose: envelope, ...}}
berth sbom record
    write the missing SBOMs of the releases that are kept and of what outlives them, as berth-sbom.service does
berth sbom find PACKAGE [--json]    which releases and images contain a package, binary or source
berth sbom list                     all SBOMs, one JSON object a line: release, image, sbom
Exit status 1: refused; the sentence is on standard error. find: 1, too, where no image contains it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from berth.host import commands
from berth.host.refused import Refused
from berth.release.settings import Settings
from berth.supply import sbom
from berth.supply.identity import identity, in_archive
from berth.supply.record import record
from berth.supply.statement import Statement, require


def arguments_of(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="berth", usage=__doc__)
    nouns = parser.add_subparsers(dest="noun", required=True)
    verify = nouns.add_parser("images").add_subparsers(dest="verb", required=True).add_parser("verify")
    verify.add_argument("--archive", type=Path)
    verify.add_argument("images", nargs="*")
    verbs = nouns.add_parser("sbom").add_subparsers(dest="verb", required=True)
    verbs.add_parser("record")
    verbs.add_parser("list")
    find = verbs.add_parser("find")
    find.add_argument("package")
    find.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def verify(args: argparse.Namespace, given: dict[str, Any]) -> None:
    """Raises Refused where one is not as signed; a name with a digest needs no statement: Docker verified that."""
    statements = [Statement.read(text, given["keys"], whose) for whose, text in given["statements"].items()]
    images = in_archive(args.archive) if args.archive else {}
    for name in args.images:
        images[name] = identity(inspected(name))
    require(images, statements, [name for name in images if "@sha256:" in name])


def inspected(name: str) -> dict[str, Any]:
    """Describe an image of this engine. Raises Refused where there is none of this name."""
    done = commands.run("docker", "image", "inspect", name)
    if done.returncode:
        raise Refused(f"The host lacks {name}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def find(kept: sbom.Kept, package: str, as_json: bool) -> int:
    """Print where a package is; return 1 where no image contains it. Raises Refused where there is no SBOM."""
    if not any(kept.all()):
        raise Refused("This host keeps no SBOM yet. To write them: sudo berth sbom record")
    found = list(sbom.find(kept.all(), package))
    rows = [
        {"release": one.release, "image": one.image, "package": one.package.name, "version": one.package.version}
        for one in found
    ]
    if as_json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(f"{row['package']} {row['version']}  {row['image']}  {row['release'] or 'platform'}")
    return 0 if rows else 1


def do(args: argparse.Namespace) -> int:
    if args.noun == "images":
        verify(args, json.load(sys.stdin))
        return 0
    settings = Settings.read()
    kept = sbom.Kept(settings.root)
    match args.verb:
        case "find":
            return find(kept, args.package, args.json)
        case "list":
            for release, bom in kept.all():
                print(json.dumps({"release": release, "image": sbom.name_of(bom), "sbom": bom}))
        case _:
            written = record(settings, kept)
            print(f"{len(written)} SBOMs written: {', '.join(written)}" if written else "Every SBOM is there.")
    return 0


def main(arguments: list[str]) -> int:
    try:
        return do(arguments_of(arguments))
    except (Refused, OSError) as error:
        reason = error.reason if isinstance(error, Refused) else f"This host cannot go on: {error}."
        print(reason, file=sys.stderr)
        return 1
