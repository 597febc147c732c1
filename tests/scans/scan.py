#!/usr/bin/env python3
"""Let other people's scanners look at a bare VPS and at one that site.yml provisioned, side by side.

usage: python3 -m tests.scans.scan [--keep] [bare | site | FOLDER]...

bare    a disposable VPS as a provider hands it over
site    a disposable VPS after site.yml
FOLDER  a test bed that runs already (its state folder, such as .demo); it is only looked at

Without a name: bare and site, which are removed at the end unless --keep is given. The table and the
raw reports are kept in artifacts/scan/. DOCKER_BENCH names a checkout of docker-bench-security, which
no package registry has; without it that scanner is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.scans.machine import Machine, ScanError, folder, packages, snapshot
from tests.scans.reports import Measure
from tests.scans.scanners import PACKAGES, Target, forced, rules, scanners

ROOT = Path(__file__).resolve().parents[2]
ARTEFACTS = ROOT / "artifacts" / "scan"
RULES = ROOT / ".cache" / "scan" / "ssg-debian13-ds.xml"
BEDS = {"bare": ROOT / ".testbed" / "scanbare", "site": ROOT / ".testbed" / "scansite"}


@dataclass
class Column:
    """What was found on one machine."""

    name: str
    measures: list[Measure] = field(default_factory=list)
    seconds: dict[str, int] = field(default_factory=dict)

    def figures(self) -> dict[tuple[str, str], str]:
        return {(each.scanner, each.name): each.figure for each in self.measures}


def playbook(state: Path, *arguments: str) -> None:
    environment = {**os.environ, "BERTH_TESTBED": str(state), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(["ansible-playbook", *arguments], cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise ScanError(f"`ansible-playbook {' '.join(arguments)}` ended with {done.returncode}; see above.")


def bring_up(name: str) -> None:
    state = BEDS[name]
    playbook(state, "molecule/shared/create.yml")
    if name == "site":
        vault = {"env": "demo", "vault_file": f"{state}/vault.yml", "vault_password_file": f"{state}/vault-password"}
        playbook(state, "ansible/new_environment.yml", "-e", json.dumps(vault))
        playbook(state, "site.yml", "-i", "inventories/demo")


def look(name: str, state: Path) -> Column:
    """Run every scanner against a running test bed."""
    reached = yaml.safe_load((state / "connection.yml").read_text())
    vps, outside = Machine.container(reached["vps_container"]), Machine.container(reached["outside_container"])
    if outside.attempt("command -v ssh-audit && command -v testssl").returncode:
        raise ScanError(
            f"{outside.name} was started from an older image, which lacks ssh-audit and testssl: create it anew."
        )
    artefacts = ARTEFACTS / name
    shutil.rmtree(artefacts, ignore_errors=True)
    artefacts.mkdir(parents=True)
    column = Column(name)
    stream = forced(rules(RULES, reached["images"]["DEBIAN_IMAGE"]))
    before = snapshot(vps)
    with packages(vps, PACKAGES), folder(vps) as work:
        target = Target(
            vps,
            outside,
            reached["vps_address"],
            reached["vps_address6"],
            reached["site"],
            reached["zone"],
            work,
            artefacts,
        )
        for scanner, run in scanners(stream).items():
            began = time.monotonic()
            column.measures += run(target)
            column.seconds[scanner] = round(time.monotonic() - began)
            print(f"   {name}: {scanner} in {column.seconds[scanner]} s", flush=True)
    changed = sorted(before ^ snapshot(vps))
    column.measures.append(
        Measure("this scan", "left as found", "no" if changed else "yes", [("changed", line) for line in changed])
    )
    keep(column, artefacts)
    return column


def keep(column: Column, artefacts: Path) -> None:
    (artefacts / "figures.json").write_text(
        json.dumps({"seconds": column.seconds, "measures": [each.as_dict() for each in column.measures]}, indent=2)
    )
    (artefacts / "remaining.md").write_text(remaining(column))


def remaining(column: Column) -> str:
    """List what each scanner still asks for; an item that several profiles share stands once."""
    lines = [f"# {column.name}: what remains"]
    for scanner in dict.fromkeys(each.scanner for each in column.measures):
        items: dict[tuple[str, str], list[str]] = {}
        for measure in column.measures:
            if measure.scanner == scanner:
                for item in measure.remaining:
                    items.setdefault(item, []).append(measure.name)
        lines += ["", f"## {scanner}: {len(items)}", ""]
        lines += [f"- `{number}` {text} [{', '.join(names)}]" for (number, text), names in items.items()]
    return "\n".join(lines) + "\n"


def table(columns: list[Column]) -> str:
    """Put the columns side by side, each scanner with the seconds it took."""
    rows = list(dict.fromkeys(key for column in columns for key in column.figures()))
    lines = [["scanner", "measure", *(column.name for column in columns), "seconds"]]
    previous = ""
    for scanner, name in rows:
        timed = any(scanner in column.seconds for column in columns)
        taken = " / ".join(str(column.seconds.get(scanner, "-")) for column in columns) if timed else ""
        figures = [column.figures().get((scanner, name), "") for column in columns]
        first = scanner != previous
        lines.append([scanner if first else "", name, *figures, taken if first else ""])
        previous = scanner
    widths = [max(len(line[number]) for line in lines) for number in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def arguments_of(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=[], help="bare, site, or the folder of a test bed that runs")
    parser.add_argument("--keep", action="store_true", help="leave the disposable VPS running, for another look")
    parsed = parser.parse_args(argv)
    parsed.targets = parsed.targets or list(BEDS)
    for target in parsed.targets:
        if target not in BEDS and not (Path(target) / "connection.yml").is_file():
            parser.error(f"{target}: neither bare nor site nor the folder of a test bed that runs")
    return parsed


def main(argv: list[str]) -> None:
    arguments = arguments_of(argv)
    columns = []
    for target in arguments.targets:
        if target in BEDS:
            bring_up(target)
            columns.append(look(target, BEDS[target]))
            if not arguments.keep:
                playbook(BEDS[target], "molecule/shared/destroy.yml")
        else:
            state = Path(target).resolve()
            columns.append(look(state.name.lstrip("."), state))
    text = table(columns)
    (ARTEFACTS / "table.md").write_text(text + "\n")
    print(f"\n{text}\n\nRaw reports and what remains: {ARTEFACTS.relative_to(ROOT)}/")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ScanError as error:
        sys.exit(f"scan: {error}")
