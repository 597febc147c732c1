"""The hooks of a project, for role stack: which are in the folder, and whether they can be run."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

NAMES = [f"{when}-{verb}" for verb in ("release", "rollback", "backup", "restore") for when in ("before", "after")]


def hook_problems(folder: str, named: bool = False) -> list[str]:
    """Return a sentence for each file that is no hook or cannot be run.

    Args:
        folder: on the controller; without it there are no hooks.
        named: whether an owner named the folder, which then must exist.
    """
    place = Path(folder)
    if not place.is_dir():
        return [f"berth_hooks is {folder}, which is no folder. Create it, or remove the variable."] if named else []
    return [problem for file in _files(place) if (problem := _problem(file))]


def hook_files(folder: str, target: str) -> list[dict[str, Any]]:
    """Return entries for berth_files: the hooks in the folder as scripts below target, and no others."""
    here = {file.name: file for file in _files(Path(folder))}
    return [
        {"path": f"{target}/{name}", "mode": "0755", "content": here[name].read_text()}
        if name in here
        else {"path": f"{target}/{name}", "state": "absent"}
        for name in NAMES
    ]


def _files(folder: Path) -> list[Path]:
    """Return what is in the folder, but for hidden files such as .gitkeep."""
    return sorted(file for file in folder.iterdir() if file.name[0] != ".") if folder.is_dir() else []


def _problem(file: Path) -> str:
    if file.name not in NAMES:
        near = difflib.get_close_matches(file.name, NAMES, 1, 0.75)
        meant = f"Did you mean {near[0]}?" if near else f"Hooks are named {', '.join(NAMES)}."
        return f"{file} is no hook. {meant}"
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text.startswith("#!"):
        return f"{file} is no script: its first line has to name its interpreter, such as #!/bin/sh."
    if not os.access(file, os.X_OK):
        return f"{file} is not executable: chmod +x {file}"
    return ""


class FilterModule:
    """Filters of role stack."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"hook_problems": hook_problems, "hook_files": hook_files}
