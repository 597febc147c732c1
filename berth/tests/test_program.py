"""The program as it is installed: one file, the same for the same sources, which finds each of its commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from program_archive import pack

from berth import __version__
from berth.__main__ import COMMANDS, main
from tests.support import ROOT

PYTHON = shutil.which("python3") or ""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sbin") / "berth"
    pack(ROOT / "berth", place)
    return place


def run(program: Path, *words: str, **how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-I", program, *words], capture_output=True, text=True, check=False, timeout=60, cwd=how.get("cwd")
    )


def test_another_clone_packs_the_same_file(program: Path, tmp_path: Path) -> None:
    clone = tmp_path / "berth"
    shutil.copytree(ROOT / "berth", clone)
    for one in clone.rglob("*.py"):
        one.chmod(0o600)
        os.utime(one, (0, 0))
    pack(clone, tmp_path / "packed")
    assert (tmp_path / "packed").read_bytes() == program.read_bytes()


def test_it_names_its_commands_and_refuses_others(program: Path) -> None:
    shown = run(program, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(word in shown.stdout for word in COMMANDS)
    wrong = run(program, "relaese")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == shown.stdout


def test_it_says_its_version(program: Path) -> None:
    said = run(program, "--version")
    assert (said.returncode, said.stdout, said.stderr) == (0, f"berth {__version__}\n", "")


@pytest.mark.parametrize("word", sorted(set(COMMANDS) - {"secrets", "metrics", "ship"}))
def test_each_command_is_in_the_file(program: Path, word: str, tmp_path: Path) -> None:
    # What lies in the caller's folder is not taken for a part of it.
    (tmp_path / "json.py").write_text("raise SystemExit('another json')\n")
    said = run(program, word, "--help", cwd=str(tmp_path))
    assert (said.returncode, said.stderr) == (0, "")
    assert f"berth {word}" in said.stdout


@pytest.mark.parametrize("word", ["secrets", "metrics", "ship"])
def test_a_command_of_units_says_how_it_is_called(program: Path, word: str) -> None:
    said = run(program, word)
    assert said.returncode != 0
    assert f"usage: berth {word}" in said.stderr


def test_who_is_not_root_is_told_how(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["backup", "run", "--reason", "a reason"]) == 1
    assert capsys.readouterr().err == "This command needs root: sudo berth backup run --reason 'a reason'\n"
