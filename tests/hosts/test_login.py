"""A fresh server as providers hand it over, met for the first time: what is refused, and what gets in."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

NAME = "login"
STATE = ROOT / ".testbed" / NAME
PASSWORD = "of the provider's account"
# sshd on another port, and an account that becomes root with a password only.
PREPARE = f"""
set -e
useradd --create-home --shell /bin/bash provider
install -d -m 0700 -o provider ~provider/.ssh
install -m 0600 -o provider ~root/.ssh/authorized_keys ~provider/.ssh/authorized_keys
echo "provider:{PASSWORD}" | chpasswd
echo 'provider ALL=(ALL:ALL) ALL' > /etc/sudoers.d/provider
sed -i '1i Port 2222' /etc/ssh/sshd_config
systemctl restart ssh
"""
# What the first run does with logins, without all that it does besides.
PLAY = """\
- hosts: berth
  become: true
  vars: {ansible_user: provider}
  tasks:
    - ansible.builtin.import_role: {name: base, tasks_from: preflight}
    - ansible.builtin.import_role: {name: base, tasks_from: packages}
    - ansible.builtin.import_role: {name: base, tasks_from: admins}
- hosts: berth
  become: true
  tasks:
    - ansible.builtin.import_role: {name: hardening, tasks_from: preflight}
    - ansible.builtin.import_role: {name: hardening, tasks_from: ssh}
    - ansible.builtin.import_role: {name: firewall}
"""
# Playbooks that need no inventory.
LOCAL = ("molecule/shared/create.yml", "molecule/shared/destroy.yml", "ansible/new_environment.yml")

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]


def play(playbook: str | Path, **variables: object) -> tuple[int, str]:
    """Run a playbook; return its status and what an operator reads, on one line."""
    where = [] if str(playbook) in LOCAL else ["-i", "inventories/demo"]
    done = subprocess.run(
        ["ansible-playbook", playbook, *where, "-e", json.dumps(variables)],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_FORCE_COLOR": "false",
            "BERTH_TESTBED": str(STATE),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def on_host(script: str) -> str:
    run = ["docker", "exec", f"berth-{NAME}-vps", "sh", "-c", script]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    try:
        code, said = play("molecule/shared/create.yml")
        assert code == 0, said[-2000:]
        vault = {"vault_file": f"{STATE}/vault.yml", "vault_password_file": f"{STATE}/vault-password"}
        code, said = play("ansible/new_environment.yml", env="demo", **vault)
        assert code == 0, said[-2000:]
        on_host(PREPARE)
        yield (STATE / "known_hosts").read_text().split()[0]
    finally:
        play("molecule/shared/destroy.yml")


@pytest.fixture
def known(address: str) -> dict[str, object]:
    """How the server is reached: its key is known under the port that sshd listens on."""
    key = (STATE / "known_hosts").read_text().split(maxsplit=1)[1]
    (STATE / "known").write_text(f"[{address}]:2222 {key}")
    return {
        "ansible_port": 2222,
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={STATE}/known -o IdentitiesOnly=yes",
    }


def test_sshd_on_another_port_is_asked_for(address: str) -> None:
    code, said = play("ansible/provision.yml", berth_first_login="provider")
    assert code != 0
    assert f"connect to host {address} port 22: Connection refused" in said
    assert "ansible_port: <port>" in said
    last = said.rpartition("fatal: ")[2]
    assert last.count("If sshd listens on another port") == 1, "both logins fail for the same reason"


def test_an_unknown_host_key_and_a_changed_one_are_told_apart(address: str, known: dict[str, object]) -> None:
    (STATE / "known").write_text("")
    code, said = play("ansible/provision.yml", berth_first_login="provider", **known)
    assert code != 0
    assert "is not in known_hosts yet" in said
    assert f"ssh-keyscan -t ed25519 -p 2222 {address} > host.key" in said
    other = (STATE / "id_ed25519.pub").read_text()
    (STATE / "known").write_text(f"[{address}]:2222 {other}")
    code, said = play("ansible/status.yml", **known)
    assert code != 0
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in said
    assert f"ssh-keygen -f {STATE}/known -R '[{address}]:2222'" in said


def test_a_key_that_nobody_knows_is_named_for_both_logins(known: dict[str, object], tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    key = str(tmp_path / "key")
    code, said = play("ansible/provision.yml", berth_first_login="provider", ansible_ssh_private_key_file=key, **known)
    assert code != 0
    for account in ("admin", "provider"):
        assert f"{account}@" in said
        assert f"The server accepts none of the offered keys for {account}" in said


def test_a_password_for_sudo_is_asked_for_and_is_enough(known: dict[str, object], tmp_path: Path) -> None:
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAY)
    code, said = play(playbook, **known)
    assert code != 0
    assert "Run it again with -K" in said

    code, said = play(playbook, ansible_become_password=PASSWORD, **known)
    assert code == 0, said[-3000:]
    assert "tcp dport 2222" in on_host("nft list table inet berth")
    assert "tcp dport 22 " not in on_host("nft list table inet berth")

    # The password is not needed any more.
    playbook.write_text("- hosts: berth\n  become: true\n  tasks: [{ansible.builtin.command: id --user}]\n")
    code, said = play(playbook, **known)
    assert code == 0, said[-3000:]
