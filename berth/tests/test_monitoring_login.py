"""The password of what watches the site: made once, and one and the same in every file."""

from __future__ import annotations

import base64
import grp
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth import monitoring_login
from berth.__main__ import main

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command as the role does."""

    def call(folder: Path, *options: str) -> dict[str, Any]:
        group = grp.getgrgid(os.getegid()).gr_name
        assert main(["secrets", "monitoring-login", str(folder), group, "operator", *options]) == 0
        return dict(json.loads(capsys.readouterr().out))

    return call


def test_a_password_is_made_once_and_each_program_can_read_it(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "login"
    first = run(folder)
    password = (folder / "password").read_text()
    assert first["changed"]
    assert len(password) >= 43
    assert password not in json.dumps(first)
    assert base64.b64decode((folder / "authorization").read_text()).decode() == f"operator:{password}"
    assert (folder / "curl").read_text() == f'user = "operator:{password}"\n'
    (name, hashed), *others = yaml.safe_load((folder / "web.yml").read_text())["basic_auth_users"].items()
    assert (name, others) == ("operator", [])
    assert hashed == monitoring_login.hashed(password)
    assert hashed != monitoring_login.hashed(password + "x")
    again = run(folder)
    assert not again["changed"]
    assert again["sum"] == first["sum"]
    (folder / "password").unlink()
    assert run(folder)["sum"] != first["sum"]
    assert (folder / "password").read_text() != password


def test_nobody_else_reads_it_and_a_careless_mode_is_put_right(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "login"
    run(folder)
    modes = {place.name: f"{stat.S_IMODE(place.stat().st_mode):04o}" for place in [folder, *folder.iterdir()]}
    assert modes == {
        "login": "0750", "password": "0440", "web.yml": "0440", "authorization": "0440", "curl": "0400",
    }  # fmt: skip
    (folder / "password").chmod(0o644)
    assert run(folder)["changed"]
    assert f"{stat.S_IMODE((folder / 'password').stat().st_mode):04o}" == "0440"


def test_a_check_says_what_would_change_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "login"
    assert run(folder, "--check") == {"changed": True, "sum": ""}
    assert not list(tmp_path.iterdir())
    made = run(folder)
    assert run(folder, "--check") == {"changed": False, "sum": made["sum"]}
    (folder / "web.yml").write_text("of another password")
    assert run(folder, "--check") == {"changed": True, "sum": made["sum"]}
    assert (folder / "web.yml").read_text() == "of another password"


def test_a_group_that_is_missing_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["secrets", "monitoring-login", str(tmp_path / "login"), "nobody-has-this-name", "operator"]
    assert main(asked) == 1
    assert "no group nobody-has-this-name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    # A check of a bare host comes before the group is made.
    assert main([*asked, "--check"]) == 0


# In check mode, role monitoring takes this status for a program that does not know the command yet.
def test_a_command_that_is_not_known_ends_with_2(tmp_path: Path) -> None:
    assert main(["secrets", "monitoring-login", str(tmp_path)]) == 2
    assert main(["secrets", "a-later-command", str(tmp_path)]) == 2
