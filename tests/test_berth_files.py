"""The module that writes many files at once, called as a play calls it: arguments in, files and an answer out."""

from __future__ import annotations

import grp
import io
import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

MODULE = Path(__file__).parents[1] / "ansible/library/berth_files.py"
Run = Callable[..., dict[str, Any]]


# An account, and a group of that name, that the host has.
WATCHER = pwd.struct_passwd(("watcher", "x", 10005, 10006, "", "/nonexistent", "/usr/sbin/nologin"))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """The owner that the module gives each file; the account that runs the tests stands for root."""
    owners: dict[str, tuple[int, int]] = {}
    accounts = {"root": pwd.getpwuid(os.getuid()), "watcher": WATCHER}
    monkeypatch.setattr(pwd, "getpwnam", accounts.__getitem__)
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: owners.update({str(path): (uid, gid)}))
    return owners


@pytest.fixture
def run(given: dict[str, tuple[int, int]]) -> Run:
    assert given == {}
    spec = util.spec_from_file_location("berth_files", MODULE)
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*entries: dict[str, Any], check: bool = False) -> dict[str, Any]:
        answer = io.StringIO()
        with (
            patch_module_args({"files": list(entries), "_ansible_check_mode": check}),
            redirect_stdout(answer),
            pytest.raises(SystemExit),
        ):
            module.main()
        return dict(json.loads(answer.getvalue()))

    return call


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def test_files_and_folders_are_written_with_what_leads_to_them_and_found_in_order_afterwards(
    run: Run, tmp_path: Path
) -> None:
    file, plain, folder = tmp_path / "folder/a.conf", tmp_path / "folder/b.conf", tmp_path / "data/own"
    entries: list[dict[str, Any]] = [
        {"path": str(file), "content": "a = 1\n", "mode": "0640"},
        {"path": str(plain), "content": ""},
        {"path": str(folder), "state": "directory", "mode": "0700"},
        {"path": str(tmp_path / "open"), "state": "directory"},
    ]
    assert run(*entries)["written"] == [entry["path"] for entry in entries]
    assert (file.read_text(), mode(file), mode(plain)) == ("a = 1\n", "0640", "0644")
    assert (mode(folder), mode(folder.parent), mode(tmp_path / "open")) == ("0700", "0755", "0755")
    again = run(*entries)
    assert (again["changed"], again["written"]) == (False, [])


def test_only_what_differs_is_written_and_said(run: Run, tmp_path: Path) -> None:
    same, other = tmp_path / "same", tmp_path / "other"
    entries = [{"path": str(same), "content": "1"}, {"path": str(other), "content": "1"}]
    run(*entries)
    other.write_text("2")
    answer = run(*entries)
    assert (answer["changed"], answer["written"]) == (True, [str(other)])
    assert (answer["diff"][0]["before"], answer["diff"][0]["after"], other.read_text()) == ("2", "1", "1")


def test_a_file_and_a_folder_belong_to_their_account_and_its_group(
    run: Run, given: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    file, folder, shared = tmp_path / "file", tmp_path / "folder", tmp_path / "shared"
    group = grp.getgrgid(os.getgid()).gr_name
    entries: list[dict[str, Any]] = [
        {"path": str(file), "content": "1", "owner": "watcher"},
        {"path": str(folder), "state": "directory", "owner": "watcher"},
        {"path": str(shared), "content": "1", "owner": "watcher", "group": group},
    ]
    run(*entries)
    assert (given[str(file)], given[str(folder)], given[str(shared)]) == (
        (10005, 10006), (10005, 10006), (10005, os.getgid()),
    )  # fmt: skip
    # Given on paper only, so somebody else has them.
    assert run(*entries, check=True)["written"] == [str(file), str(folder), str(shared)]


def test_an_owner_may_be_a_number_that_no_account_has(
    run: Run, given: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    run({"path": str(tmp_path / "file"), "content": "1", "owner": "10099"})
    assert given[str(tmp_path / "file")] == (10099, 10099)


ROLE = """\
- name: Write
  berth_files:
    files:
      - {path: "{{ folder }}/a.conf", src: etc/a.conf.j2, vars: {own: "{{ shown }} of its own"}, owner: "{{ me }}"}
      - {path: "{{ folder }}/b.conf", src: etc/b.conf, owner: "{{ me }}"}
"""
INCLUDE = "{% include 'etc/a.inc' %}"
PLAY = """\
- hosts: localhost
  gather_facts: false
  vars: {shown: words}
  roles: [one]
"""


def test_a_role_gives_a_template_with_variables_and_a_file_as_it_is(tmp_path: Path) -> None:
    role = tmp_path / "roles/one"
    for path, text in {
        "tasks/main.yml": ROLE,
        "templates/etc/a.conf.j2": "# {{ ansible_managed }}\n{% if own %}\na = {{ own }}\n{% endif %}\n" + INCLUDE,
        "templates/etc/a.inc": "b = {{ shown }}\n",
        "files/etc/b.conf": "b = {{ shown }}\n",
    }.items():
        (role / path).parent.mkdir(parents=True, exist_ok=True)
        (role / path).write_text(text)
    (tmp_path / "play.yml").write_text(PLAY)
    extra = json.dumps(
        {
            "folder": str(tmp_path / "there"),
            "me": str(os.getuid()),
            "ansible_python_interpreter": sys.executable,
        }
    )
    subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-c", "local", "-e", extra, tmp_path / "play.yml"],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(MODULE.parents[2] / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(tmp_path / "roles"),
        },
        check=True,
    )
    assert (tmp_path / "there/a.conf").read_text() == "# Ansible managed\na = words of its own\nb = words"
    assert (tmp_path / "there/b.conf").read_text() == "b = {{ shown }}\n"


@pytest.mark.parametrize(("kind", "name"), [("owner", "nobody-has-this-name"), ("group", "none-has-this-name")])
def test_an_account_may_be_missing_in_check_mode_and_otherwise_nothing_is_written(
    run: Run, tmp_path: Path, kind: str, name: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "new/second"
    # One that an earlier task would have made.
    entries = [{"path": str(first), "content": "1"}, {"path": str(second), "content": "1", kind: name}]
    assert run(*entries, check=True)["written"] == [str(first), str(second)]
    answer = run(*entries)
    assert answer["failed"]
    assert name in answer["msg"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_others_may_read_is_put_right_though_its_content_is(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("a\n")
    file.chmod(0o644)
    assert run({"path": str(file), "content": "a\n", "mode": "0600"})["changed"]
    assert mode(file) == "0600"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("UMASK 022\nOTHER 1\n", "UMASK 027\nOTHER 1\n"),
        ("#UMASK 022\nOTHER 1\n", "UMASK 027\nOTHER 1\n"),
        ("# UMASK is what new files lack\n", "# UMASK is what new files lack\nUMASK 027\n"),
        ("UMASK 022\nUMASK 077\n", "UMASK 022\nUMASK 027\n"),
        ("UMASKED 1", "UMASKED 1\nUMASK 027\n"),
        ("", "UMASK 027\n"),
    ],
    ids=["replaced", "commented out", "a sentence is no setting", "the last one counts", "another key", "empty"],
)
def test_a_setting_is_changed_and_the_rest_of_the_file_stays(run: Run, tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "login.defs"
    file.write_text(before)
    file.chmod(0o600)
    entry = {"path": str(file), "settings": {"UMASK": "027"}, "separator": " "}
    assert run(entry)["changed"]
    assert (file.read_text(), mode(file)) == (after, "0600")
    assert not run(entry)["changed"]


def test_nothing_is_replaced_when_one_file_is_refused_by_its_program(run: Run, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    answer = run(
        {"path": str(good), "content": "fine\n"},
        {"path": str(bad), "content": "broken\n", "validate": "grep fine %s"},
    )
    assert answer["failed"]
    assert str(bad) in answer["msg"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_goes_where_it_has_to_be_absent(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "cron.deny"
    file.touch()
    assert run({"path": str(file), "state": "absent"})["changed"]
    assert not file.exists()
    assert not run({"path": str(file), "state": "absent"})["changed"]


def test_a_limit_takes_permissions_away_and_gives_none(run: Run, tmp_path: Path) -> None:
    for name, permissions in (("a.log", 0o664), ("b.log", 0o600), ("c.txt", 0o666)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(permissions)
    entry = {"path": f"{tmp_path}/*.log", "state": "limited", "mode": "0640"}
    assert run(entry)["written"] == [str(tmp_path / "a.log")]
    assert [mode(tmp_path / name) for name in ("a.log", "b.log", "c.txt")] == ["0640", "0600", "0666"]
    assert not run(entry)["changed"]


def test_a_limit_does_not_follow_a_link_out_of_a_home(run: Run, tmp_path: Path) -> None:
    system, home = tmp_path / "passwd", tmp_path / "home"
    system.touch(mode=0o644)
    home.mkdir()
    (home / ".bashrc").symlink_to(system)
    assert not run({"path": f"{home}/.*", "state": "limited", "mode": "0600"})["changed"]
    assert mode(system) == "0644"


def test_check_mode_says_what_would_change_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    gone, limited, new, folder = (tmp_path / name for name in ("gone", "limited", "new/file", "folder"))
    gone.touch()
    limited.touch(mode=0o644)
    answer = run(
        {"path": str(gone), "state": "absent"},
        {"path": str(limited), "state": "limited", "mode": "0600"},
        {"path": str(new), "content": "a\n"},
        {"path": str(folder), "state": "directory"},
        check=True,
    )
    assert answer["written"] == [str(gone), str(new), str(folder), str(limited)]
    assert (gone.exists(), mode(limited), new.parent.exists(), folder.exists()) == (True, "0644", False, False)
