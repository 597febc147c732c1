"""Ansible's own strategy is the default, without a deprecation warning; Mitogen is opt-in."""

from __future__ import annotations

import configparser
import os
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

MITOGEN = "mitogen=="
PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {msg: It runs.}
"""


def play(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one task with this project's ansible.cfg, on the controller."""
    (folder / "play.yml").write_text(PLAY)
    return subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-c", "local", folder / "play.yml"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_default_is_ansibles_own_strategy_with_deprecation_warnings_on(tmp_path: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "ansible.cfg")
    assert {"strategy", "deprecation_warnings"} & set(settings["defaults"]) == set()
    done = play(tmp_path)
    assert "It runs." in done.stdout
    assert done.stderr == ""


def test_the_opt_in_strategy_runs_and_ansible_says_what_it_thinks_of_it(tmp_path: Path) -> None:
    done = play(tmp_path, ANSIBLE_STRATEGY="one_interpreter")
    assert "It runs." in done.stdout
    assert "Use of strategy plugins not included in ansible.builtin are deprecated" in " ".join(done.stderr.split())


def test_without_mitogen_the_opt_in_strategy_says_what_to_install(tmp_path: Path) -> None:
    package = tmp_path / "packages" / "ansible_mitogen"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError\n")
    done = play(tmp_path, ANSIBLE_STRATEGY="one_interpreter", PYTHONPATH=str(package.parent))
    assert done.returncode != 0
    assert "pip install --require-hashes -r requirements/mitogen.txt" in " ".join(done.stderr.split())


@pytest.mark.parametrize(("lock", "held"), [("controller", False), ("mitogen", True)])
def test_mitogen_is_in_a_lock_of_its_own(lock: str, held: bool) -> None:
    assert (MITOGEN in (ROOT / "requirements" / f"{lock}.txt").read_text()) is held
