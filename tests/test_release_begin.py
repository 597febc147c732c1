"""How a release begins: the host is told when the newest commit was made, where the controller knows it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from berth.release.command import arguments_of
from tests.support import ROOT

PLAY = """\
- hosts: berth
  gather_facts: false
  tasks:
    - ansible.builtin.include_tasks: {tasks}
      vars:
        _stack_verb: {verb}
        _stack_by: ada@laptop
        stack_force: false
        stack_emergency: false
        stack_unsigned: ""
        stack_break_lock: false
        stack_release: 1.4.0
        stack_source_directory: {sources}
"""
INVENTORY = (
    "berth: {hosts: {here: {ansible_connection: local, ansible_python_interpreter: '{{ ansible_playbook_python }}'}}}\n"
)
BERTH = """\
#!/bin/sh
printf '%s\\n' "$@" > {told}
echo '{{"changed": false, "run": "r", "release": "1.4.0", "settled": ""}}'
"""
DATE = "2026-11-29T06:20:00+01:00"


def begun(folder: Path, sources: Path, verb: str = "release") -> str:
    """Run the role's tasks with a program that only takes down what it is told; return the commit's time as told."""
    program, told = folder / "berth", folder / "told"
    program.write_text(BERTH.format(told=told))
    program.chmod(0o755)
    tasks = ROOT / "roles/stack/tasks/release_begin.yml"
    (folder / "play.yml").write_text(PLAY.format(tasks=tasks, verb=verb, sources=sources))
    (folder / "hosts.yml").write_text(INVENTORY)
    done = subprocess.run(
        ["ansible-playbook", f"--inventory={folder}/hosts.yml", str(folder / "play.yml")],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, *words = told.read_text().splitlines()
    known = arguments_of(words)
    assert (known.verb, known.release, known.by) == (verb, "1.4.0", "ada@laptop"), json.dumps(words)
    return str(known.committed)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    (folder / "services").mkdir(parents=True)
    (folder / "services/main.py").touch()
    dates = {"GIT_COMMITTER_DATE": DATE, "GIT_AUTHOR_DATE": DATE}
    names = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    for command in (["init"], ["add", "--all"], [*names, "commit", "--message=All"]):
        subprocess.run(["git", "-C", folder, *command], env=os.environ | dates, check=True, capture_output=True)
    return folder


def test_the_host_is_told_when_the_newest_commit_was_made(tmp_path: Path, clone: Path) -> None:
    assert begun(tmp_path, clone) == "2026-11-29T05:20:00Z"


def test_a_rollback_releases_no_commit(tmp_path: Path, clone: Path) -> None:
    assert begun(tmp_path, clone, "rollback") == ""


@pytest.mark.parametrize("where", ["no clone", "not tracked"])
def test_sources_without_a_commit_are_released_all_the_same(tmp_path: Path, clone: Path, where: str) -> None:
    sources = (tmp_path if where == "no clone" else clone) / "unpacked"
    sources.mkdir()
    assert begun(tmp_path, sources) == ""
