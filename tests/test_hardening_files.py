"""The module that writes many files at once, called as a play calls it: arguments in, files and an answer out."""

from __future__ import annotations

import grp
import io
import json
import os
import pwd
import stat
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

MODULE = Path(__file__).parents[1] / "roles/hardening/library/hardening_files.py"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call the module; whoever runs the tests is its root."""
    spec = util.spec_from_file_location("hardening_files", MODULE)
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(pwd, "getpwnam", lambda _: pwd.getpwuid(os.getuid()))
    monkeypatch.setattr(os, "chown", lambda *_: None)

    def call(*entries: dict[str, Any], check: bool = False) -> dict[str, Any]:
        files = [{"group": grp.getgrgid(os.getgid()).gr_name, **entry} for entry in entries]
        answer = io.StringIO()
        with (
            patch_module_args({"files": files, "_ansible_check_mode": check}),
            redirect_stdout(answer),
            pytest.raises(SystemExit),
        ):
            module.main()
        return dict(json.loads(answer.getvalue()))

    return call


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def test_a_file_is_written_with_its_folder_and_found_in_order_afterwards(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "folder/a.conf"
    entry = {"path": str(file), "content": "a = 1\n", "mode": "0640"}
    assert run(entry)["written"] == [str(file)]
    assert (file.read_text(), mode(file)) == ("a = 1\n", "0640")
    assert not run(entry)["changed"]


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
    entry = {"path": str(file), "settings": {"UMASK": "027"}, "separator": " "}
    assert run(entry)["changed"]
    assert file.read_text() == after
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
    gone, limited, new = tmp_path / "gone", tmp_path / "limited", tmp_path / "new"
    gone.touch()
    limited.touch(mode=0o644)
    answer = run(
        {"path": str(gone), "state": "absent"},
        {"path": str(limited), "state": "limited", "mode": "0600"},
        {"path": str(new), "content": "a\n"},
        check=True,
    )
    assert answer["written"] == [str(gone), str(new), str(limited)]
    assert (gone.exists(), mode(limited), new.exists()) == (True, "0644", False)
