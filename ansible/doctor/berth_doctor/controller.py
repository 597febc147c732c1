"""Collect facts on the controller: keys, vault, images. Changes nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

ENCRYPTED = "$ANSIBLE_VAULT"


def run(*command: str) -> tuple[int, str]:
    """Return status and output; a missing program counts as a failure."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout


def key(path: str) -> dict[str, Any]:
    """Return facts about the SSH key: the configured file, or the default keys of ssh."""
    agent = run("ssh-add", "-l")[0] == 0
    if path:
        file = Path(path).expanduser()
        found = file.exists()
        return {"file": str(file), "exists": found, "mode": file.stat().st_mode & 0o777 if found else 0, "agent": agent}
    own = sorted(str(one) for one in Path("~/.ssh").expanduser().glob("id_*") if one.suffix != ".pub")
    return {"file": "", "own": own, "agent": agent}


def vault(inventory: str, password_file: str) -> dict[str, Any]:
    """Return which files of the inventory are encrypted, and facts about the password file."""
    encrypted = []
    for path in sorted(Path(inventory).rglob("*.yml")):
        with path.open(errors="replace") as file:
            if file.read(len(ENCRYPTED)) == ENCRYPTED:
                encrypted.append(str(path))
    password = Path(password_file)
    exists = password.is_file()
    return {
        "encrypted": encrypted,
        "password_file": password_file,
        "exists": exists,
        "mode": password.stat().st_mode & 0o777 if exists and os.name == "posix" else 0,
    }


def images(names: list[str]) -> dict[str, Any]:
    """Return the output of `docker image inspect`, without missing images."""
    # Exit code 1: some are missing.
    code, said = run("docker", "image", "inspect", *names)
    return {"ok": code in (0, 1), "inspected": said if code in (0, 1) else "[]", "said": said if code > 1 else ""}
