"""README.md's commands in a fresh clone of the last commit, on a terminal: those that take seconds."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.readme.commands import FAST, commands, fresh_clone, own_environment
from tests.terminal import Seen, on_terminal

QUESTION = "Vault password (or"
# Where a newcomer's question waits for an answer, the answer is Enter.
QUIET_SECONDS = 1.5


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clone, with a virtual environment of its own that borrows what is in this one: no second installation."""
    place = fresh_clone(tmp_path_factory.mktemp("readme"))
    venv = place / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    borrowed = next(venv.glob("lib/python*/site-packages")) / "borrowed.pth"
    borrowed.write_text(f"{sysconfig.get_path('purelib')}\n")
    playbook = venv / "bin" / "ansible-playbook"
    # As pip writes it where the path has a space.
    playbook.write_text(
        f"#!/bin/sh\n'''exec' \"{venv}/bin/python\" \"$0\" \"$@\"\n' '''\n"
        "import sys\nfrom ansible.cli.playbook import main\nsys.exit(main())\n"
    )
    playbook.chmod(0o755)
    return place


def run(clone: Path, command: str) -> Seen:
    shell = ["bash", "-c", f"source .venv/bin/activate && {command}"]
    return on_terminal(shell, clone, 90, environment=own_environment(), enter_after=QUIET_SECONDS)


def test_from_an_empty_clone_to_what_is_still_missing_nobody_is_asked_for_a_password(clone: Path) -> None:
    """What is missing is named: the example's address, and what stands in its main.yml between < and >."""
    seen = {command: run(clone, command) for command in commands() if command in FAST}
    for command, one in seen.items():
        assert QUESTION not in one.text, f"{command}: {one.text}"
        assert one.status is not None, f"{command} waits for something: {one.text}"
        # Each says what it is about, not that a file is not there.
        assert "could not be found" not in one.text, f"{command}: {one.text}"
    made, *_, last = seen.values()
    assert made.status == 0, made.text
    assert (clone / ".vault-password").stat().st_mode & 0o777 == 0o600
    assert (clone / "inventories/production/group_vars/all/vault.yml").read_text().startswith("$ANSIBLE_VAULT;")
    assert last.status != 0, last.text
    assert "ansible_host, berth_domain" in last.line, last.text


def test_the_password_is_asked_for_where_the_file_with_it_is_away(clone: Path) -> None:
    (clone / ".vault-password").rename(clone / "kept elsewhere")
    try:
        command = ["bash", "-c", "source .venv/bin/activate && ansible-playbook site.yml -i inventories/production"]
        password = (clone / "kept elsewhere").read_text()
        seen = on_terminal(command, clone, 90, password, own_environment())
        assert QUESTION in seen.text
        assert "ansible_host, berth_domain" in seen.line, seen.text
        demo = run(clone, "ansible-playbook -i inventories/demo molecule/shared/destroy.yml")
        assert QUESTION not in demo.text
        assert demo.status == 0, demo.text
    finally:
        (clone / "kept elsewhere").rename(clone / ".vault-password")


def test_line_ends_are_those_of_unix_in_every_checkout(clone: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "--eol"], cwd=clone, capture_output=True, text=True, check=True).stdout
    assert [line for line in listed.splitlines() if "w/crlf" in line or "w/mixed" in line] == []
