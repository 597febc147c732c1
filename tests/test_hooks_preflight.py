"""What role stack makes of a project's hooks: what it refuses before anything changes, and what it installs."""

from __future__ import annotations

from pathlib import Path

import pytest

from berth.host.hooks import AFTER, BEFORE, VERBS
from tests.support import ROOT
from tests.test_env_contract import load

hooks = load(ROOT / "roles/stack/filter_plugins/hooks.py")


def put(folder: Path, name: str, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    place = folder / name
    place.write_text(text)
    place.chmod(mode)
    return place


def test_the_role_and_the_program_know_the_same_hooks() -> None:
    assert {*hooks.NAMES} == {f"{when}-{verb}" for when in (BEFORE, AFTER) for verb in VERBS}


def test_all_hooks_are_known_and_hidden_files_are_none(tmp_path: Path) -> None:
    for name in (*hooks.NAMES, ".gitkeep"):
        put(tmp_path, name)
    assert hooks.hook_problems(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "text", "mode", "problem"),
    [
        ("before-relase", "#!/bin/sh\n", 0o755, "{} is no hook. Did you mean before-release?"),
        ("README.md", "Hooks", 0o644, "{} is no hook. Hooks are named before-release, after-release, "),
        ("after-backup", "echo done\n", 0o755, "{} is no script: its first line has to name its interpreter, such as"),
        ("after-backup", "#!/bin/sh\n", 0o644, "{} is not executable: chmod +x {}"),
    ],
)
def test_what_is_no_hook_or_cannot_be_run_is_refused(
    tmp_path: Path, name: str, text: str, mode: int, problem: str
) -> None:
    put(tmp_path, "before-release")
    place = str(put(tmp_path, name, text, mode))
    [found] = hooks.hook_problems(str(tmp_path))
    assert found.startswith(problem.format(place, place))


def test_a_folder_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "hooks")
    assert hooks.hook_problems(missing) == []
    assert hooks.hook_problems(missing, named=True) == [
        f"berth_hooks is {missing}, which is no folder. Create it, or remove the variable."
    ]


def test_hooks_are_installed_and_those_that_are_gone_removed(tmp_path: Path) -> None:
    put(tmp_path, "after-release", "#!/bin/sh\necho released\n")
    entries = {entry.pop("path"): entry for entry in hooks.hook_files(str(tmp_path), "/opt/berth/hooks")}
    assert entries.pop("/opt/berth/hooks/after-release") == {"mode": "0755", "content": "#!/bin/sh\necho released\n"}
    assert len(entries) == 7
    assert all(entry == {"state": "absent"} for entry in entries.values())
    assert {entry["state"] for entry in hooks.hook_files(str(tmp_path / "none"), "/x")} == {"absent"}
