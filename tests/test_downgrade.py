"""A host that a newer Berth provisioned is not provisioned or released by an older one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth import __version__
from tests.support import ROOT, operate

NEWER = "99.10.0"
OWNER = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": sys.executable,
    "berth_domain": "www.example.com",
    "berth_admins": [{"name": "ada", "ssh_keys": ["ssh-ed25519 AAAA ada@laptop"]}],
    "berth_smtp_host": "smtp.example.com",
    "berth_mail_from": "no-reply@example.com",
}
# Host -> our version, the host's (None: it has no file), and whether we may provision it.
VERSIONS: dict[str, tuple[str, str | None, bool]] = {
    "same": ("0.2.0", "0.2.0", True),
    "older": ("0.2.0", "0.1.0", True),
    "no_file": ("0.2.0", None, True),
    "nine": ("0.10.0", "0.9.0", True),
    "ten": ("0.9.0", "0.10.0", False),
    "final": ("1.0.0-rc.1", "1.0.0", False),
    "candidate": ("1.0.0", "1.0.0-rc.2", True),
    "tenth_candidate": ("1.0.0-rc.9", "1.0.0-rc.10", False),
    "empty": ("0.2.0", "", False),
    "unknown": ("0.2.0", "unknown", False),
}


def on_this_machine(folder: Path, versions: dict[str, tuple[str, str | None, bool]]) -> list[str]:
    """Return the arguments of a run whose hosts are all this machine, each with a version of its own."""
    hosts: dict[str, dict[str, object]] = {}
    for name, (ours, host, _) in versions.items():
        place = folder / f"version.{name}"
        if host is not None:
            place.write_text(f"{host}\n")
        hosts[name] = {**OWNER, "ours": ours, "place": str(place)}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"berth": {"hosts": hosts}}))
    # -e wins over the variables of the role.
    return ["-i", str(folder / "hosts.yml"), "-e", "_program_version_file={{ place }}"]


def play(folder: Path, role: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run a part of role program."""
    plays: list[dict[str, Any]] = [
        {
            "hosts": "berth",
            "gather_facts": False,
            "tasks": [
                {"ansible.builtin.import_role": {"name": "program", **role}},
                {"ansible.builtin.debug": {"msg": "{{ inventory_hostname }} goes on"}},
            ],
        }
    ]
    (folder / "play.yml").write_text(yaml.safe_dump(plays))
    return operate(["ansible-playbook", str(folder / "play.yml"), *arguments])


@pytest.mark.parametrize("playbook", ["ansible/provision.yml", "ansible/release.yml", "ansible/upgrade_data.yml"])
def test_an_older_berth_changes_nothing_and_says_what_to_do(tmp_path: Path, playbook: str) -> None:
    code, said = operate(["ansible-playbook", playbook, *on_this_machine(tmp_path, {"vps": ("", NEWER, False)})])
    assert code != 0
    assert f"vps has Berth {NEWER}, and this is the older Berth {__version__}. Nothing was changed." in said
    assert f"git checkout v{NEWER}" in said
    assert "-e berth_allow_downgrade=true" in said


def test_versions_are_compared_as_semantic_versions(tmp_path: Path) -> None:
    ours = ["-e", "_program_version={{ ours }}"]
    _, said = play(tmp_path, {"tasks_from": "preflight"}, *on_this_machine(tmp_path, VERSIONS), *ours, "-v")
    assert set(re.findall(r"(\w+) goes on", said)) == {name for name, (*_, allowed) in VERSIONS.items() if allowed}
    assert 'contains "unknown", which is no version' in said


def test_a_downgrade_that_is_meant_goes_on(tmp_path: Path) -> None:
    arguments = [
        *on_this_machine(tmp_path, VERSIONS),
        "-e",
        "_program_version=0.0.1",
        "-e",
        "berth_allow_downgrade=true",
    ]
    code, said = play(tmp_path, {"tasks_from": "preflight"}, *arguments, "-v")
    assert code == 0, said
    assert set(re.findall(r"(\w+) goes on", said)) == set(VERSIONS)


def test_an_inventory_cannot_allow_it_for_good(tmp_path: Path) -> None:
    arguments = on_this_machine(tmp_path, {"vps": ("", None, True)})
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text("berth_allow_downgrade: true\n")
    code, said = operate(["ansible-playbook", "ansible/preflight.yml", *arguments])
    assert code != 0
    assert re.search(r"berth_allow_downgrade .*belongs on the command line", said), said


def test_the_version_that_is_written_is_that_of_the_program(tmp_path: Path) -> None:
    """In check mode: what is written belongs to root."""
    arguments = on_this_machine(tmp_path, {"vps": ("", "0.1.0", True)})
    code, said = play(tmp_path, {}, *arguments, "--check", "--diff")
    assert code == 0, said
    assert f"-0.1.0 +{__version__}" in said
    # A run that is cut off in between lets no older version in.
    names = [task["name"] for task in yaml.safe_load((ROOT / "roles/program/tasks/main.yml").read_text())]
    assert names.index("Write the version") < names.index("Install the program")
