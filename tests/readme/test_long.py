"""README.md's commands in a fresh clone of the last commit, on a terminal: those that take minutes (make test-readme).

The demo has a name and ports of its own on this machine, so it cannot be another checkout's at the same time.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.readme.commands import commands, fresh_clone, own_environment
from tests.terminal import Seen, on_terminal

INSTALL_SECONDS = 600
DEMO_SECONDS = 2400

pytestmark = [pytest.mark.site, pytest.mark.timeout(2 * DEMO_SECONDS)]


def run(clone: Path, command: str, seconds: float) -> Seen:
    """Run one of the README's commands as it stands there."""
    assert command in commands()
    return on_terminal(["bash", "-c", command], clone, seconds, environment=own_environment())


def demo_containers() -> str:
    """Return the demo's containers and the folders of the checkouts that they belong to."""
    command = ["docker", "ps", "--all", "--filter", "label=com.docker.compose.project=berth-demo", "--format"]
    columns = '{{.Names}} of {{.Label "com.docker.compose.project.working_dir"}}'
    return subprocess.run([*command, columns], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if running := demo_containers():
        pytest.fail(f"A demo is on this machine; remove it first, with `make demo-down` in its folder:\n{running}")
    place = fresh_clone(tmp_path_factory.mktemp("readme"))
    yield place
    if demo_containers():
        run(place, "make demo-down", INSTALL_SECONDS)


def test_a_controller_is_installed_and_its_programs_are_at_hand(clone: Path) -> None:
    command = next(command for command in commands() if command.startswith("make venv"))
    shell = ["bash", "-c", f"{command} && command -v ansible-playbook && ansible-playbook --version"]
    seen = on_terminal(shell, clone, INSTALL_SECONDS, environment=own_environment())
    assert seen.status == 0, seen.text
    assert f"{clone}/.venv/bin/ansible-playbook" in seen.text
    # Whoever only deploys needs none of the tests' tools.
    assert not (clone / ".venv" / "bin" / "molecule").exists()


def test_the_demo_comes_up_without_a_question_and_goes_again(clone: Path) -> None:
    seen = run(clone, "make demo", DEMO_SECONDS)
    assert "Vault password (or" not in seen.text
    assert seen.status == 0, seen.text[-5000:]
    site = re.search(r"^  Site +(https://\S+)$", seen.text, re.MULTILINE)
    mailbox = re.search(r"^  Mailbox +(http://\S+)", seen.text, re.MULTILINE)
    assert site
    assert mailbox
    assert httpx.get(mailbox[1], headers={"Accept": "text/html"}).status_code == 200
    # The last lines give a command for this; a name under .localhost is this machine for curl.
    shown = re.search(r"^  (curl --cacert \S+ \S+)$", seen.text, re.MULTILINE)
    assert shown
    page = subprocess.run(shown[1].split(), cwd=clone, capture_output=True, text=True, timeout=60, check=False)
    assert "<html" in page.stdout, page.stderr
    again = run(clone, "make demo", DEMO_SECONDS)
    assert again.status == 0, again.text[-5000:]
    assert re.search(r"vps +: ok=\d+ +changed=0 ", again.text), again.text[-5000:]
    gone = run(clone, "make demo-down", INSTALL_SECONDS)
    assert gone.status == 0, gone.text
    assert "The demo is removed" in gone.text
    assert demo_containers() == ""
    assert not (clone / ".demo").exists()
