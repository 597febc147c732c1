"""When ansible/vault-password asks a person, and what it says where there is nobody to ask or the answer is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from tests.support import ROOT
from tests.terminal import Seen, on_terminal

PASSWORD = "the right one"
PROMPT = "Vault password"
# Ansible runs it without arguments; what it looks at is the command line of the program that did.
AS_ANSIBLE = ["/bin/sh", "-c", "ansible/vault-password; exit $?"]
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def encrypted(text: str) -> str:
    vault = VaultLib([("default", VaultSecret(PASSWORD.encode()))])
    return str(vault.encrypt(text).decode())


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The script in a folder whose name has a space, with a demo and a production that both track a vault.yml."""
    root = tmp_path / "my sites" / "berth"
    (root / "ansible").mkdir(parents=True)
    shutil.copy(ROOT / "ansible" / "vault-password", root / "ansible")
    for environment, text in {"demo": "vault_a: 1\n", "production": encrypted("vault_a: 1\n")}.items():
        values = root / "inventories" / environment / "group_vars" / "all"
        values.mkdir(parents=True)
        (values / "vault.yml").write_text(text)
        (root / "inventories" / environment / "hosts.yml").write_text("berth:\n")
    return root


def ask(clone: Path, *command: str, typed: str = "") -> Seen:
    return on_terminal([*AS_ANSIBLE, *command], clone, 10, typed, ENVIRONMENT)


def without_terminal(clone: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AS_ANSIBLE, *command],
        cwd=clone,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        "ansible-playbook site.yml -i inventories/demo",
        "ansible-playbook ansible/new_environment.yml -e env=production",
        "ansible-playbook molecule/shared/create.yml",
        "ansible-playbook site.yml -i inventories/production-of-another",
        "ansible-playbook site.yml -i inventories/production --syntax-check",
        "ansible-playbook site.yml -i inventories/production --vault-id prod@prompt",
        "ansible-playbook site.yml -i inventories/production --vault-password-file elsewhere",
        "ansible-playbook site.yml -i inventories/production -J",
    ],
)
def test_nobody_is_asked_where_nothing_has_to_be_opened(clone: Path, command: str) -> None:
    assert ask(clone, *command.split()) == Seen("no .vault-password\n", 0)


@pytest.mark.parametrize(
    "command",
    [
        "ansible-playbook site.yml -i inventories/production",
        "ansible-playbook site.yml --inventory=./inventories/production/hosts.yml",
        "ansible-playbook site.yml -i inventories/demo,inventories/production",
        "ansible-playbook site.yml -i inventories/demo -e @inventories/production/group_vars/all/vault.yml",
        "ansible-vault edit inventories/production/group_vars/all/vault.yml",
        "ansible-vault encrypt inventories/demo/group_vars/all/vault.yml",
    ],
)
def test_a_person_is_asked_for_what_is_encrypted(clone: Path, command: str) -> None:
    seen = ask(clone, *command.split(), typed=f"{PASSWORD}\n")
    assert seen.text.startswith(PROMPT)
    assert seen.text.endswith(f"\n{PASSWORD}\n")
    assert seen.status == 0


def test_the_inventory_may_be_named_from_the_root_or_by_the_environment(clone: Path) -> None:
    assert PROMPT in ask(clone, "ansible-playbook", "-i", str(clone / "inventories/production"), typed="\x03").text
    named = {**ENVIRONMENT, "ANSIBLE_INVENTORY": "inventories/production"}
    assert PROMPT in on_terminal([*AS_ANSIBLE, "ansible-playbook"], clone, 10, "\x03", named).text


def test_a_single_encrypted_value_counts(clone: Path) -> None:
    value = encrypted("x").replace("\n", "\n  ")
    (clone / "inventories/demo/group_vars/all/main.yml").write_text(f"vault_b: !vault |\n  {value}\n")
    assert PROMPT in ask(clone, "ansible-playbook", "-i", "inventories/demo", typed=f"{PASSWORD}\n").text


def test_a_wrong_answer_is_asked_for_again_and_three_are_enough(clone: Path) -> None:
    seen = ask(clone, "ansible-playbook", "-i", "inventories/production", typed=f"wrong\n{PASSWORD}\n")
    assert "It does not open inventories/production/group_vars/all/vault.yml." in seen.text
    assert seen.status == 0
    seen = ask(clone, "ansible-playbook", "-i", "inventories/production", typed="wrong\n\nwrong\n")
    assert "It is empty." in seen.text
    assert seen.text.endswith("No vault password was given that fits.\n")
    assert seen.status == 1


def test_a_kept_password_is_used_without_a_question(clone: Path) -> None:
    (clone / ".vault-password").write_text(f"{PASSWORD}\n")
    for inventory in ("demo", "production"):
        assert ask(clone, "ansible-playbook", "-i", f"inventories/{inventory}") == Seen(f"{PASSWORD}\n", 0)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (
            None,
            "no terminal to ask for the vault password, which inventories/production/group_vars/all/vault.yml needs",
        ),
        ("", "is empty. Write the vault password into it"),
        ("wrong\n", "does not open inventories/production/group_vars/all/vault.yml"),
        ("a folder", "cannot be read (Is a directory)"),
    ],
)
def test_without_a_terminal_one_sentence_says_what_is_wrong(clone: Path, kept: str | None, said: str) -> None:
    place = clone / ".vault-password"
    if kept == "a folder":
        place.mkdir()
    elif kept is not None:
        place.write_text(kept)
    done = without_terminal(clone, "ansible-playbook", "-i", "inventories/production")
    assert done.returncode == 1
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    # What opens nothing does not need it.
    assert without_terminal(clone, "ansible-playbook", "-i", "inventories/demo").returncode == 0
