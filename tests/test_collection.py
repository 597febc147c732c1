"""The Ansible collection berth.server, as another project installs and uses it: built, installed, and asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth import __version__
from tests.support import ROOT

# Builds and installs it, most of a minute.
pytestmark = pytest.mark.integration

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
# The play of docs/using-roles.md.
PLAY = re.findall(r"(?ms)^## A play$.*?^```yaml\n(.*?)^```$", (ROOT / "docs/using-roles.md").read_text())[0]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command of somebody who has no setting of this project; return what it says, on one line."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "BERTH_"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, "ANSIBLE_COLLECTIONS_PATH": str(cwd / "collections"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    said = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert done.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    return Path(run(sys.executable, ROOT / "collection/build.py", "--folder", folder, cwd=folder).strip())


@pytest.fixture(scope="module")
def project(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another project, with the collection installed."""
    folder = tmp_path_factory.mktemp("another project")
    run("ansible-galaxy", "collection", "install", "--offline", "-p", folder / "collections", archive, cwd=folder)
    return folder


def play(project: Path, plays: list[dict[str, Any]], *arguments: str) -> str:
    (project / "play.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
    local = ["-i", "here,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
    return run("ansible-playbook", "play.yml", *local, *arguments, cwd=project)


def test_it_holds_the_roles_with_what_they_read_and_nothing_else(archive: Path) -> None:
    assert archive.name == f"berth-server-{__version__}.tar.gz"
    with tarfile.open(archive) as opened:
        names = [one.name for one in opened.getmembers() if one.isfile()]
    assert {name.split("/")[0] for name in names} == {
        *{"CHANGELOG.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "docker-compose.prod.yml"},
        *{"ansible", "berth", "meta", "monitoring", "plugins", "roles", "services"},
    }
    assert {name.split("/")[1] for name in names if name.startswith("roles/")} == set(ROLES)
    unwanted = re.compile(r"(^|/)(tests?|molecule|inventories|frontend|__pycache__|\.[^/]*)(/|$)|vault")
    assert [name for name in names if unwanted.search(name)] == []
    assert {name for name in names if name.startswith("services/")} == {
        "services/shared/keys.py",
        "services/shared/rules.py",
    }


def test_each_role_tells_its_variables(project: Path) -> None:
    said = run("ansible-doc", "-t", "role", "--list", "berth.server", cwd=project)
    assert set(re.findall(r"berth\.server\.(\w+)", said)) >= set(ROLES)
    base = run("ansible-doc", "-t", "role", "berth.server.base", cwd=project)
    assert "Administrator accounts of the host" in base
    assert "is validated before any of them is replaced" in run("ansible-doc", "berth.server.berth_files", cwd=project)
    assert "Return the command that runs a playbook" in run(
        "ansible-doc", "-t", "filter", "berth.server.next_command", cwd=project
    )


def test_the_documented_play_is_accepted_in_another_folder(project: Path) -> None:
    (project / "documented.yml").write_text(PLAY)
    said = run("ansible-playbook", "documented.yml", "-i", "web,", "--list-tasks", cwd=project)
    for role in ("base", "hardening", "firewall"):
        assert f"berth.server.{role} : " in said


def test_each_role_has_a_value_for_every_variable_by_the_plugins_of_the_collection(project: Path) -> None:
    installed = project / "collections/ansible_collections/berth/server/roles"
    plays: list[dict[str, Any]] = [{"hosts": "all", "tasks": []}]
    for role in (name for name in ROLES if name != "berth"):
        names = ", ".join(yaml.safe_load((installed / role / "defaults/main.yml").read_text()) or {})
        load = {"name": f"berth.server.{role}", "rolespec_validate": False}
        values = {"_values": "{{ [" + names + "] | to_json }}", "role_path": str(installed / role)}
        tasks = [
            {"ansible.builtin.import_role": load, "tags": "never"},
            {"ansible.builtin.assert": {"that": "_values is not none"}, "vars": values},
        ]
        plays.append({"hosts": "all", "gather_facts": False, "tasks": tasks})
    play(project, plays)


def test_a_role_runs_with_module_look_up_and_filters_of_the_collection(project: Path) -> None:
    """In check mode: role program packs the program, and role environment checks its values."""
    (project / "version").write_text("0.0.1\n")
    values = yaml.safe_load((ROOT / "roles/environment/molecule/default/vars/site.yml").read_text())
    preflight = {"name": "berth.server.environment", "tasks_from": "preflight"}
    tasks = [
        {"ansible.builtin.import_role": {"name": "berth.server.program"}},
        {"ansible.builtin.import_role": preflight},
    ]
    place = json.dumps({"_program_version_file": f"{project}/version"})
    plays: list[dict[str, Any]] = [{"hosts": "all", "tasks": tasks, "vars": values}]
    said = play(project, plays, "--check", "--diff", "-e", place)
    assert f"-0.0.1 +{__version__}" in said
    assert (project / "version").read_text() == "0.0.1\n"
