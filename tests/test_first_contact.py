"""What an operator reads when Ansible does not get in, or does not become root.

The messages are those that OpenSSH 9.2 and 10.0, sudo 1.9.16, Ansible 2.19 and Mitogen 0.3.54 gave on a test bed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from first_contact import OTHERS, SSH, Login, explain, remedy
from tests.support import ROOT

LOGIN = Login("203.0.113.7", "debian", "2222", "~/.ssh/site", ("-o", "UserKnownHostsFile=known"))
# What is said, the table that knows it, and what the operator is told to write or to run.
KNOWN = {
    "unknown key": (
        'Data could not be sent to remote host "203.0.113.7". Make sure this host can be reached over ssh: '
        "Host key verification failed.",
        SSH,
        ["ssh-keyscan -t ed25519 -p 2222 203.0.113.7 > host.key", "ssh-keygen -lf host.key", "cat host.key >> known"],
    ),
    "unknown key, asked": (
        "No ED25519 host key is known for [203.0.113.7]:2222 and you have requested strict checking.\r\n"
        "Host key verification failed.\r\n",
        SSH,
        ["is not in known_hosts yet"],
    ),
    "changed key": (
        "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\n"
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"
        "Host key for 203.0.113.7 has changed and you have requested strict checking.\nHost key verification failed.",
        SSH,
        ["another host key than the one in known_hosts", "ssh-keygen -f known -R '[203.0.113.7]:2222'"],
    ),
    "wrong key": (
        "debian@203.0.113.7: Permission denied (publickey,password).",
        SSH,
        [
            "none of the offered keys for debian",
            "ansible_ssh_private_key_file",
            "ssh-copy-id -p 2222 debian@203.0.113.7",
        ],
    ),
    "readable key": ('Load key "/home/ada/.ssh/site": bad permissions', SSH, ["chmod 600 ~/.ssh/site"]),
    "no such key": (
        "no such identity: /home/ada/.ssh/site: No such file or directory\n"
        "debian@203.0.113.7: Permission denied (publickey).",
        SSH,
        ["no such key on this machine"],
    ),
    "too many keys": (
        "Task failed: EOF on stream; last 100 lines received:\n"
        "Received disconnect from 203.0.113.7 port 2222:2: Too many authentication failures",
        SSH,
        ["ansible_ssh_private_key_file", "-o IdentitiesOnly=yes"],
    ),
    "refused": (
        "ssh: connect to host 203.0.113.7 port 2222: Connection refused",
        SSH,
        ["ansible_port: <port>", "docs/disasters/locked-out-of-ssh.md"],
    ),
    "no route": ("ssh: connect to host 203.0.113.7 port 2222: No route to host", SSH, ["ansible_port", "firewall"]),
    "timed out": ("ssh: connect to host 203.0.113.7 port 22: Connection timed out", SSH, ["firewall"]),
    "no name": (
        "ssh: Could not resolve hostname nowhere.berth.invalid: Name or service not known",
        SSH,
        ["ansible_host"],
    ),
    "old client": (
        "Unable to negotiate with 203.0.113.7 port 22: no matching key exchange method found. Their offer: "
        "mlkem768x25519-sha256",
        SSH,
        ["hardening_ssh_kex"],
    ),
    "cloud image": (
        'EOF on stream; last 100 lines received:\nPlease login as the user "admin" rather than the user "root".',
        OTHERS,
        ["berth_first_login: admin"],
    ),
    "expired password": ("Password change required but no TTY available.", OTHERS, ["ssh -p 2222 -l debian"]),
    "closed account": ("This account is currently not available.", OTHERS, ["debian has no shell"]),
    "sudo password, Mitogen": (
        "Task failed: error occurred on host vps: sudo password is required",
        OTHERS,
        ["-K", 'ansible_become_password: "{{ vault_become_password }}"'],
    ),
    "sudo password": ("Task failed: Missing sudo password", OTHERS, ["-K"]),
    "wrong sudo password, Mitogen": ("error occurred on host vps: sudo password is incorrect", OTHERS, ["is wrong"]),
    "wrong sudo password": ("Task failed: Incorrect sudo password", OTHERS, ["The sudo password of debian is wrong"]),
    "requiretty": ("sudo: sorry, you must have a tty to run sudo", OTHERS, ["Defaults:debian !requiretty"]),
    "no sudoer": ("debian is not in the sudoers file.", OTHERS, ["berth_first_login: root"]),
    "no sudo": ("/bin/sh: 1: sudo: not found", OTHERS, ["has no sudo"]),
    "no sudo, Mitogen": (
        "Child start failed: [Errno 2] No such\n        file or directory: 'sudo'. Command was: sudo -p",
        OTHERS,
        ["has no sudo"],
    ),
    "no Python": ("The module interpreter '/usr/bin/python3' was not found.", OTHERS, ["install --yes python3"]),
    "no Python, Mitogen": ("bash: line 1: /usr/bin/python3: No such file or directory", OTHERS, ["python3"]),
    "no Python, Mitogen, looked for": ("bash: line 1: python3: command not found", OTHERS, ["python3"]),
}


@pytest.mark.parametrize(("said", "table", "wanted"), KNOWN.values(), ids=KNOWN)
def test_each_refusal_comes_with_what_helps(said: str, table: dict[str, str], wanted: list[str]) -> None:
    helps = remedy(said, LOGIN, table)
    assert [words for words in wanted if words not in helps] == [], helps


def test_a_failure_of_a_task_is_not_taken_for_one_of_the_login() -> None:
    for message in ("The disk is full.", "Connection refused", "sudo was not asked", "python is fine", ""):
        assert remedy(message, LOGIN, OTHERS) == ""


@pytest.fixture
def ssh_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for ssh that says what is in this file, and notes how it was called."""
    words = tmp_path / "words"
    stand_in = tmp_path / "ssh"
    stand_in.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\ncat {words} >&2\nexit 255\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return words


@pytest.mark.parametrize("kind", ["changed key", "unknown key, asked", "wrong key"])
def test_what_mitogen_does_not_say_ssh_is_asked(ssh_says: Path, kind: str) -> None:
    said, _, wanted = KNOWN[kind]
    ssh_says.write_text(said)
    helps = explain("Host key checking is enabled, and SSH reported an unrecognized or mismatching host key.", LOGIN)
    assert helps.startswith(said.strip().splitlines()[0]), "its own words come first"
    assert wanted[0] in helps
    called = (ssh_says.parent / "called").read_text()
    assert "ControlPath=none" in called
    assert called.endswith(
        "-p 2222 -l debian -i ~/.ssh/site -o IdentitiesOnly=yes -o UserKnownHostsFile=known 203.0.113.7 true\n"
    )


PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
"""


@pytest.mark.parametrize("strategy", ["one_interpreter", "linear"])
def test_any_playbook_says_what_helps(ssh_says: Path, tmp_path: Path, strategy: str) -> None:
    ssh_says.write_text("ssh: connect to host 203.0.113.7 port 2222: Connection refused\n")
    (tmp_path / "play.yml").write_text(PLAY)
    done = subprocess.run(
        ["ansible-playbook", "-i", "203.0.113.7,", "-e", "ansible_port=2222", tmp_path / "play.yml"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STRATEGY": strategy},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert "Connection refused" in done.stdout
    assert "203.0.113.7: Nothing listens on port 2222 of 203.0.113.7." in done.stdout
