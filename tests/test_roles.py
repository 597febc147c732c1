"""Every role says what may be set, with a value in defaults/ and a meaning in its argument specs; each stands alone."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from jinja2 import nodes

ROOT = Path(__file__).parent.parent
ROLES = sorted((ROOT / "roles").iterdir())
PLAYBOOKS = [ROOT / "site.yml", *sorted((ROOT / "ansible").glob("*.yml"))]
# What the ansible.cfg of another project takes over from the one here: roles/berth/README.md names the same.
PATHS = ("roles_path", "library", "action_plugins", "filter_plugins")


def defaults(role: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "roles" / role / "defaults/main.yml").read_text()) or {}


def specs(role: str) -> dict[str, Any]:
    told = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())
    return dict(told["argument_specs"]["main"]["options"])


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_and_argument_specs_name_the_same_variables(role: Path) -> None:
    options = specs(role.name)
    optional = {name for name, option in options.items() if not option.get("required")}
    assert set(defaults(role.name)) == optional
    assert all(name.startswith(f"{role.name}_") for name in options)


def test_logrotate_is_given_a_file_of_root() -> None:
    """With Ansible's own strategy the modules template and copy validate a file of the account that logged in."""
    tasks = yaml.safe_load((ROOT / "roles/base/tasks/security_log.yml").read_text())
    checked = [task for task in tasks if "logrotate --debug" in str(task)]
    assert [list(task) for task in checked] == [["name", "berth_files"]]


# --- values that roles share ---


def test_without_the_shared_defaults_a_role_has_the_same() -> None:
    shared, compared = defaults("berth"), 0
    for role in ROLES:
        for name, value in defaults(role.name).items():
            for read in jinja2.Environment().parse(str(value)).find_all(nodes.Filter):  # noqa: S701  # nothing is rendered
                if read.name != "default" or not isinstance(read.node, nodes.Name) or read.node.name not in shared:
                    continue
                common = shared[read.node.name]
                # Computed for the site, or of another role: nothing that a role alone could know.
                if "{{" in str(common) or read.node.name == "berth_edge_containers":
                    continue
                compared += 1
                assert read.args[0].as_const() == common, f"roles/berth has another default than {name}"
    assert compared > 20


def imports_role(part: Any) -> bool:
    if isinstance(part, list):
        return any(map(imports_role, part))
    if isinstance(part, dict):
        kinds = {"ansible.builtin.import_role", "ansible.builtin.include_role"}
        return bool(kinds & part.keys()) or any(map(imports_role, part.values()))
    return False


def test_every_play_with_a_role_has_the_shared_defaults() -> None:
    plays = [
        play
        for path in PLAYBOOKS
        if isinstance(found := yaml.safe_load(path.read_text()), list)
        for play in found
        if imports_role(play)
    ]
    assert len(plays) > 8
    # The doctor loads it in a task, to judge wrong values itself.
    assert [play["name"] for play in plays if play.get("roles", [None])[0] != "berth"] == ["Doctor"]


# --- a role in another project ---


def play(folder: Path, plays: list[dict[str, Any]]) -> tuple[int, str]:
    """Run plays on this machine, in a project that only knows where roles, modules and filters are."""
    ours = configparser.ConfigParser(interpolation=None)
    ours.read(ROOT / "ansible.cfg")
    paths = {name: f"{ROOT}/{ours['defaults'][name]}" for name in PATHS}
    (folder / "ansible.cfg").write_text(
        "\n".join(["[defaults]", *(f"{name} = {path}" for name, path in paths.items())])
    )
    (folder / "play.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
    done = subprocess.run(
        [
            *("ansible-playbook", "play.yml", "-i", "here,", "-c", "local"),
            *("-e", f"ansible_python_interpreter={sys.executable}"),
        ],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "BERTH_"))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def test_each_role_alone_has_a_value_for_every_variable(tmp_path: Path) -> None:
    plays: list[dict[str, Any]] = [{"hosts": "all", "tasks": []}]
    plays += [
        {
            "name": role.name,
            "hosts": "all",
            "gather_facts": False,
            "tasks": [
                {
                    "ansible.builtin.import_role": {"name": role.name, "rolespec_validate": False},
                    "tags": "never",
                },
                {
                    "name": f"Values of {role.name}",
                    "ansible.builtin.assert": {"that": "_values is not none", "quiet": True},
                    "vars": {
                        "_values": "{{ [" + ", ".join(defaults(role.name)) + "] | to_json }}",
                        "role_path": str(role),
                    },
                },
            ],
        }
        for role in ROLES
        # What is shared and computed for the whole site.
        if role.name != "berth"
    ]
    code, said = play(tmp_path, plays)
    assert code == 0, said


def test_the_readme_names_what_another_project_needs() -> None:
    told = (ROOT / "roles/berth/README.md").read_text()
    assert re.findall(r"^(\w+) = berth/", told, re.MULTILINE) == list(PATHS)


def test_a_role_with_its_own_variables_passes_its_checks_and_names_what_is_missing(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "roles/environment/molecule/default/vars/site.yml").read_text())
    task = {"ansible.builtin.import_role": {"name": "environment", "tasks_from": "preflight"}}
    code, said = play(tmp_path, [{"hosts": "all", "tasks": [task], "vars": values}])
    assert code == 0, said
    del values["environment_domain"], values["environment_mail_host"]
    code, said = play(tmp_path, [{"hosts": "all", "tasks": [task], "vars": values}])
    assert code != 0
    assert "environment_domain (in this project: berth_domain" in said
    assert "environment_mail_host (in this project: berth_smtp_host" in said


def test_backups_without_the_name_of_a_site_are_refused(tmp_path: Path) -> None:
    values = {"backup_password": "x" * 24, "backup_targets": [{"name": "store", "repository": "/srv/store"}]}
    task = {"ansible.builtin.import_role": {"name": "backup", "tasks_from": "preflight"}}
    code, said = play(tmp_path, [{"hosts": "all", "tasks": [task], "vars": values}])
    assert code != 0
    assert "backup_site (in this project: berth_domain) is missing." in said
