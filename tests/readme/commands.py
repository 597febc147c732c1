"""The commands of README.md as they stand there, and which test runs each of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests import documents
from tests.support import ROOT

# On a terminal in a fresh clone, in seconds: tests/test_readme.py.
FAST = {
    "ansible-playbook ansible/new_environment.yml",
    "ansible-playbook ansible/doctor.yml -i inventories/production",
    "ansible-playbook site.yml -i inventories/production",
}
# The same in minutes: tests/readme/test_long.py (make test-readme).
LONG = {"make demo", "make demo-down", "make venv && source .venv/bin/activate"}


def commands() -> list[str]:
    """Return README.md's commands, each once; those in neither set are in tests/documents.txt."""
    return list(dict.fromkeys(command.text for command in documents.commands() if command.page == "README.md"))


def fresh_clone(folder: Path) -> Path:
    """Clone the last commit into a folder whose name has a space, as a git that writes DOS line ends would."""
    place = folder / "my sites" / "berth"
    place.parent.mkdir()
    command = ["git", "-c", "core.autocrlf=true", "clone", "--quiet", str(ROOT), str(place)]
    subprocess.run(command, check=True, timeout=60)
    return place


def own_environment() -> dict[str, str]:
    """Return the environment of somebody who has set nothing up yet: no virtual environment, nothing of Ansible's."""
    path = [part for part in os.environ["PATH"].split(":") if Path(part).parent.name != ".venv"]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ANSIBLE_", "BERTH_", "MAKE", "MFLAGS"))
    }
    return {**kept, "PATH": ":".join(path), "VIRTUAL_ENV": ""}
