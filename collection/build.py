#!/usr/bin/env python3
"""Build the Ansible collection berth.server from the roles of this project.

A role of a collection finds filters and look-ups by their full names only, in the collection's plugins/. So this
writes the collection to a folder: the roles with full names, the plugins with documentation, and what roles read beside
them (the program berth, the sample's compose file and alerts, the rules of values). Then ansible-galaxy packs it. The
last line is the path of the archive.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import util
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NAME = "berth.server"
# What is packed, and where it stands in the collection; what is not named stays at its place.
PACKED = (
    r"roles/[^/]+/(README\.md|(defaults|files|filter_plugins|handlers|meta|tasks|templates|vars)/.+)",
    r"berth/(?!tests/).+\.py",
    r"ansible/(library|action)/berth_files\.py",
    r"ansible/plugins/filter/(commands|compose|rules)\.py",
    r"roles/program/lookup_plugins/.+",
    r"services/shared/(rules|keys)\.py",
    r"docker-compose\.prod\.yml",
    r"monitoring/(alerts|dashboards)\.yml",
    r"monitoring/runbooks/.+",
    r"collection/(galaxy\.yml|README\.md|meta/runtime\.yml)",
    r"LICENSE|CHANGELOG\.md",
)
MOVED = {
    "ansible/library/": "plugins/modules/",
    "ansible/action/": "plugins/action/",
    "roles/program/lookup_plugins/": "plugins/lookup/",
    "collection/": "",
}
# Where Ansible evaluates templates.
TEMPLATED = re.compile(r"roles/[^/]+/(defaults|handlers|tasks|templates|vars)/")
LOOKUPS = ("program_archive",)
MODULES = ("berth_files",)
# Roles that others import.
ROLES = ("program",)
# A filter finds its own modules and data by its place, so it stays there, and the collection's plugin loads it.
PLUGIN = '''"""The filters of {source}."""

from importlib import util
from pathlib import Path

_spec = util.spec_from_file_location("{module}", Path(__file__).resolve().parents[2] / "{source}")
_module = util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

FilterModule = _module.FilterModule
'''


def sources() -> list[str]:
    """Return the files that belong into the collection: those that git lists, committed or not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    packed = re.compile("|".join(f"(?:{one})" for one in PACKED))
    return [name for name in sorted(set(listed)) if packed.fullmatch(name) and (ROOT / name).is_file()]


def is_filter(name: str) -> bool:
    """Tell whether a file is a plugin with filters."""
    return bool(re.fullmatch(r"(roles/[^/]+/filter_plugins|ansible/plugins/filter)/\w+\.py", name))


def filters(plugin: str) -> dict[str, str]:
    """Return what the filters of a plugin are for: name -> its docstring."""
    spec = util.spec_from_file_location(f"berth_filters_{Path(plugin).stem}", ROOT / plugin)
    assert spec  # noqa: S101  # an existing file has a spec
    assert spec.loader  # noqa: S101
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: one.__doc__ or "" for name, one in module.FilterModule().filters().items()}


def documentation(name: str, purpose: str) -> dict[str, Any]:
    """Return the documentation of a filter, as ansible-doc reads it from a file beside the plugin."""
    paragraphs = [re.sub(r"\s+", " ", one).strip() for one in purpose.split("\n\n")]
    return {
        "DOCUMENTATION": {
            "name": name,
            "short_description": paragraphs[0].rstrip("."),
            "description": paragraphs,
            "options": {"_input": {"description": "The value.", "type": "raw", "required": True}},
        },
        "RETURN": {"_value": {"description": "As the description says.", "type": "raw"}},
    }


def qualified(text: str, names: Iterable[str]) -> str:
    """Return a template's or a task file's text with the full names of our filters, look-ups, modules and roles."""
    any_filter, any_lookup, any_module, any_role = map("|".join, (names, LOOKUPS, MODULES, ROLES))
    for pattern in (
        rf"(\|\s*|\bmap\(\s*')({any_filter})\b",
        rf"(\b(?:lookup|query)\(\s*')({any_lookup})(?=')",
        rf"(?m)(^[ -]*)({any_module})(?=:$)",
        rf"(_role: \{{name: )({any_role})\b",
    ):
        text = re.sub(pattern, rf"\1{NAME}.\2", text)
    return text


def write(folder: Path, repository: str) -> None:
    """Write the collection to a folder, which is made anew."""
    names = sources()
    ours = {name: filters(name) for name in names if is_filter(name)}
    all_filters = [one for those in ours.values() for one in those]
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        start = next((one for one in MOVED if name.startswith(one)), "")
        place = folder / (MOVED[start] + name.removeprefix(start) if start else name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place)
        if TEMPLATED.match(name):
            place.write_text(qualified(place.read_text(), all_filters))
    for name, those in ours.items():
        _write_plugin(folder / "plugins/filter", name, those)
    if repository:
        with (folder / "galaxy.yml").open("a") as file:
            file.write(yaml.safe_dump({"repository": repository}))


def _write_plugin(folder: Path, source: str, purposes: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = Path(source).stem
    (folder / f"{stem}.py").write_text(PLUGIN.format(source=source, module=f"berth_server_{stem}"))
    for name, purpose in purposes.items():
        text = yaml.safe_dump(documentation(name, purpose), sort_keys=False)
        (folder / f"{name}.yml").write_text(text)


def origin() -> str:
    """Return the web address of the clone's origin; empty without one."""
    command = ["git", "remote", "get-url", "origin"]
    url = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    url = re.sub(r"^(?:ssh://)?git@([^:/]+)[:/]", r"https://\1/", url)
    return url.removesuffix(".git") if url.startswith("https://") else ""


def main(arguments: list[str]) -> int:
    """Write the collection, pack it, and print the path of the archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache/collection", help="where it is written")
    parser.add_argument("--repository", default=origin(), help="web address of its sources; Galaxy requires one")
    given = parser.parse_args(arguments)
    tree, archives = given.folder / NAME, given.folder
    write(tree, given.repository)
    command = ["ansible-galaxy", "collection", "build", "--force", "--output-path", str(archives), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr or done.stdout, file=sys.stderr)
        return 1
    print(re.findall(r" at (\S+\.tar\.gz)", re.sub(r"\s+", " ", done.stdout))[-1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
