"""What `make venv` does around an installation, with a Python that only writes down what it is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

TOO_OLD = """\
#!/bin/sh
[ "$1" = --version ] && echo Python 3.9.2 && exit 0
exec REAL -c "import sys; sys.version_info = (3, 9, 2); $2"
"""
# Knows what the scripts ask of it. A virtual environment that it makes holds a copy of it, as a real one does.
NEW_ENOUGH = """\
#!/bin/sh
case "$*" in
  --version) echo Python 3.12.1 ;;
  *ensurepip*) exit 0 ;;
  *version_info*) exec REAL "$@" ;;
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp "$0" .venv/bin/python3 && echo venv >> log ;;
  *"-m pip install"*)
    for last in "$@"; do :; done
    echo "pip $last" >> log
    [ ! -e pip-fails ] || exit 1
    printf '#!%s/.venv/bin/python\\n' "$PWD" > .venv/bin/ansible-playbook ;;
  -) PYTHONPATH=$PWD/packages exec REAL - ;;
  *) echo "unexpected: $*" >&2; exit 3 ;;
esac
"""
# Without the packages of this virtual environment.
BARE_PYTHON = Path(sys.base_prefix) / "bin" / "python3"
PROGRAMS = ("sh", "dirname", "cmp", "cp", "rm", "mkdir", "find", "id", "cat")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The scripts in a folder whose name has a space, and a PATH of what every machine has, in bin beside it."""
    root = tmp_path / "my sites" / "berth"
    shutil.copytree(ROOT / "requirements", root / "requirements")
    (root / "packages" / "ansible").mkdir(parents=True)
    (root / "packages" / "ansible" / "__init__.py").touch()
    programs = root.parent / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).symlink_to(str(shutil.which(name)))
    for name in ("ssh", "chromium", "certutil", "shellcheck", "age-keygen"):
        (programs / name).symlink_to(programs / "cat")
    install_python(root, NEW_ENOUGH)
    return root


def install_python(root: Path, program: str, name: str = "python3") -> None:
    place = root.parent / "bin" / name
    place.write_text(program.replace("REAL", str(BARE_PYTHON)))
    place.chmod(0o755)


def make(root: Path, kind: str = "controller", **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{root}/.venv/bin:{root.parent}/bin"
    return subprocess.run(
        [root / "requirements" / "venv.sh", kind],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def log(root: Path) -> list[str]:
    """Return what was done since the last time."""
    text = (root / "log").read_text().splitlines() if (root / "log").exists() else []
    (root / "log").unlink(missing_ok=True)
    return text


def test_a_controller_needs_no_tool_of_the_tests(clone: Path) -> None:
    for name in ("chromium", "certutil", "shellcheck", "age-keygen"):
        (clone.parent / "bin" / name).unlink()
    assert make(clone).returncode == 0
    assert log(clone) == ["venv", "pip requirements/controller.txt"]
    assert make(clone).returncode == 0
    assert log(clone) == []


def test_the_tests_need_both_and_a_changed_lock_is_installed(clone: Path) -> None:
    assert make(clone, "dev").returncode == 0
    assert log(clone) == ["venv", "pip requirements/controller.txt", "pip requirements/dev.txt"]
    with (clone / "requirements" / "dev.txt").open("a") as lock:
        lock.write("# one more\n")
    assert make(clone, "dev").returncode == 0
    assert log(clone) == ["pip requirements/dev.txt"]


@pytest.mark.parametrize("program", [TOO_OLD, None], ids=["too old", "missing"])
def test_a_python_that_will_not_do_is_one_sentence_and_leaves_nothing(clone: Path, program: str | None) -> None:
    if program:
        install_python(clone, program)
    else:
        (clone.parent / "bin" / "python3").unlink()
    done = make(clone)
    here = "python3 is Python 3.9.2" if program else "there is no python3 here"
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"Berth needs Python 3.11 or newer, and {here}. Install one, or name it: PYTHON=/path/to/python3.12\n"
    )
    assert not (clone / ".venv").exists()


def test_a_newer_one_beside_it_is_taken_and_so_is_one_that_is_named(clone: Path) -> None:
    install_python(clone, TOO_OLD)
    install_python(clone, NEW_ENOUGH, "python3.12")
    assert make(clone).returncode == 0
    shutil.rmtree(clone / ".venv")
    named = clone.parent / "mine"
    (clone.parent / "bin" / "python3.12").rename(named)
    assert make(clone).returncode == 1
    assert make(clone, PYTHON=str(named)).returncode == 0


def test_an_interrupted_installation_is_not_taken_for_a_finished_one(clone: Path) -> None:
    (clone / "pip-fails").touch()
    assert make(clone).returncode != 0
    (clone / "pip-fails").unlink()
    log(clone)
    done = make(clone)
    assert "Making .venv anew" in done.stdout
    assert log(clone) == ["venv", "pip requirements/controller.txt"]


def test_a_folder_that_was_moved_or_copied_gets_another(clone: Path) -> None:
    make(clone)
    log(clone)
    moved = clone.rename(clone.parent / "elsewhere")
    assert "Making .venv anew" in make(moved).stdout
    assert log(moved) == ["venv", "pip requirements/controller.txt"]


def test_a_python_that_lost_its_packages_or_went_away_is_noticed(clone: Path) -> None:
    make(clone)
    log(clone)
    python = clone / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.10")
    assert make(clone).returncode == 0
    assert log(clone) == ["venv", "pip requirements/controller.txt"]
    upgraded = python.read_text().replace("$PWD/packages", "/nowhere")
    python.write_text(upgraded)
    assert make(clone).returncode == 0
    assert log(clone) == ["venv", "pip requirements/controller.txt"]


def test_a_virtual_environment_that_another_checkout_lends_is_left_alone(clone: Path) -> None:
    make(clone)
    log(clone)
    other = clone.parent / "other"
    shutil.copytree(clone, other, ignore=shutil.ignore_patterns(".venv"))
    (other / ".venv").symlink_to(clone / ".venv")
    assert make(other).returncode == 0
    assert log(other) == []


def test_a_folder_that_everybody_may_write_to_is_named(clone: Path) -> None:
    assert make(clone).stderr == ""
    clone.chmod(0o777)
    assert "Ansible ignores its ansible.cfg and finds no roles" in make(clone).stderr


def test_tests_say_that_they_want_a_newer_make() -> None:
    assert shutil.which("make")
    old = ["make", "--no-print-directory", "-C", str(ROOT), "make4", ".FEATURES=target-specific", "MAKE_VERSION=3.81"]
    done = subprocess.run(old, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "The tests need GNU make 4 or newer, and this is 3.81" in done.stderr
