"""ansible/rotate.yml on an inventory as an operator has it: what it would change, and what it refuses before that."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from shared import keys
from tests.support import PLAIN, ROOT

pytestmark = pytest.mark.integration

HOSTS = """
berth:
  vars: {ansible_user: root, ansible_become: false}
  hosts:
    here: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
"""
SETTINGS = """
berth_domain: www.site.test
berth_smtp_host: mail.site.test
berth_mail_from: "Site <no-reply@site.test>"
berth_operator_mail: operator@site.test
berth_admins: [{name: root, ssh_keys: ["ssh-ed25519 AAAAold ada@laptop"]}]
# As in an environment that new_environment.yml made.
berth_secret_manager: {}
"""
SECRET = "x" * 48


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    spec = importlib.util.spec_from_file_location("rotation", ROOT / "ansible/plugins/filter/rotation.py")
    assert spec
    assert spec.loader
    rotation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rotation)
    names = rotation.rotation_names((ROOT / "docker-compose.prod.yml").read_text())
    values: dict[str, object] = {name: SECRET for name in names if name != "vault_jwt_public_keys"}
    values |= {"vault_jwt_private_key": keys.new_private_key(), "vault_jwt_secret_key": "a" * 64}
    values |= {name: "" for name in names if "previous" in name or name.endswith("_uri")}
    values |= {"vault_traces_headers": {"Authorization": SECRET}}
    folder = tmp_path / "group_vars/all"
    folder.mkdir(parents=True)
    (tmp_path / "hosts.yml").write_text(HOSTS)
    (folder / "main.yml").write_text(SETTINGS)
    (tmp_path / "password").write_text("of the vault\n")
    vault = VaultLib([("default", VaultSecret(b"of the vault"))])
    (folder / "vault.yml").write_bytes(vault.encrypt(yaml.safe_dump(values).encode()))
    return tmp_path


def rotate(inventory: Path, **variables: object) -> tuple[int, str]:
    """Return the exit status and what is printed, with -v and in check mode: nothing here is a server."""
    command = ["ansible-playbook", "ansible/rotate.yml", "-i", str(inventory), "--check", "-v"]
    environment = {**PLAIN, "ANSIBLE_VAULT_PASSWORD_FILE": str(inventory / "password"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*command, "-e", json.dumps(variables)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join((done.stdout + done.stderr).split())
    for secret in (SECRET, "a" * 64, "of the vault"):
        assert secret not in said
    return done.returncode, said


def test_a_dry_run_says_what_it_would_change_and_prints_no_secret(inventory: Path) -> None:
    before = (inventory / "group_vars/all/vault.yml").read_bytes()
    code, said = rotate(inventory, secret="databases,database_admins,token_keys,backup_password,monitoring_login")
    assert code == 0, said
    for name in ("vault_mongo_auth_service_password", "vault_redis_admin_password", "vault_jwt_private_key"):
        assert name in said.partition("Would rotate ")[2]
    assert (inventory / "group_vars/all/vault.yml").read_bytes() == before


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "Name what to rotate: -e secret=databases|database_admins"),
        ({"secret": "database"}, "write one of databases, database_admins"),
        ({"secret": "vault_traces_headers"}, "vault_traces_headers is no text"),
        (
            {"secret": "vault_smtp_password", "rotate_value_file": "/dev/null"},
            "No new value of vault_smtp_password was given",
        ),
    ],
)
def test_what_cannot_be_rotated_is_refused(inventory: Path, variables: dict[str, object], says: str) -> None:
    code, said = rotate(inventory, **variables)
    assert code != 0
    assert says in said
    assert "changed=0" in said.rpartition("PLAY RECAP")[2].split("localhost")[0]


def test_a_value_from_another_file_is_named(inventory: Path) -> None:
    # It is read after vault.yml, and would count more than the new value.
    (inventory / "group_vars/all/zz.yml").write_text("vault_redis_auth_service_password: from elsewhere\n")
    code, said = rotate(inventory, secret="databases")
    assert code != 0
    assert "vault_redis_auth_service_password in this run comes from another place" in said
    assert "from elsewhere" not in said


def test_the_vault_password_changes_together_with_its_file(
    inventory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vault, opener = inventory / "group_vars/all/vault.yml", inventory / "password"
    former = VaultLib([("default", VaultSecret(b"of the vault"))])
    values = former.decrypt(vault.read_bytes())
    play = tmp_path_factory.mktemp("play") / "play.yml"
    play.write_text(
        "- hosts: berth\n  gather_facts: false\n  vars:\n"
        f"    rotate_vault: {vault}\n    rotate_vault_opener: {opener}\n"
        f"  tasks: [{{ansible.builtin.import_tasks: {ROOT}/ansible/tasks/rotate_vault_password.yml}}]\n"
    )
    command = ["ansible-playbook", str(play), "-i", str(inventory / "hosts.yml")]
    environment = {**PLAIN, "ANSIBLE_VAULT_PASSWORD_FILE": str(opener), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    new = opener.read_text().strip()
    assert new not in done.stdout + done.stderr
    assert new != "of the vault"
    assert VaultLib([("default", VaultSecret(new.encode()))]).decrypt(vault.read_bytes()) == values
    assert (vault.stat().st_mode & 0o777, opener.stat().st_mode & 0o777) == (0o600, 0o600)
    assert not list(inventory.rglob("*.new"))
