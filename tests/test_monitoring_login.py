"""The password of what watches the site: made once, and one and the same in every file."""

from __future__ import annotations

import base64
import grp
import io
import json
import os
import stat
from contextlib import redirect_stdout
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

MODULE = Path(__file__).parents[1] / "roles/monitoring/library/monitoring_login.py"


@pytest.fixture(scope="module")
def login() -> ModuleType:
    spec = util.spec_from_file_location("monitoring_login", MODULE)
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(login: ModuleType, folder: Path, check: bool = False) -> dict[str, Any]:
    group = grp.getgrgid(os.getegid()).gr_name
    arguments = {"directory": str(folder), "group": group, "username": "operator", "_ansible_check_mode": check}
    answer = io.StringIO()
    with patch_module_args(arguments), redirect_stdout(answer), pytest.raises(SystemExit):
        login.main()
    return dict(json.loads(answer.getvalue()))


def test_a_password_is_made_once_and_each_program_can_read_it(login: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "login"
    first = run(login, folder)
    password = (folder / "password").read_text()
    assert first["changed"]
    assert len(password) >= 43
    assert password not in json.dumps(first)
    assert base64.b64decode((folder / "authorization").read_text()).decode() == f"operator:{password}"
    assert (folder / "curl").read_text() == f'user = "operator:{password}"\n'
    (name, hashed), *others = yaml.safe_load((folder / "web.yml").read_text())["basic_auth_users"].items()
    assert (name, others) == ("operator", [])
    assert hashed == login.hashed(password)
    assert hashed != login.hashed(password + "x")
    again = run(login, folder)
    assert not again["changed"]
    assert again["sum"] == first["sum"]
    (folder / "password").unlink()
    assert run(login, folder)["sum"] != first["sum"]
    assert (folder / "password").read_text() != password


def test_nobody_else_reads_it_and_a_careless_mode_is_put_right(login: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "login"
    run(login, folder)
    modes = {place.name: f"{stat.S_IMODE(place.stat().st_mode):04o}" for place in [folder, *folder.iterdir()]}
    assert modes == {
        "login": "0750", "password": "0440", "web.yml": "0440", "authorization": "0440", "curl": "0400",
    }  # fmt: skip
    (folder / "password").chmod(0o644)
    assert run(login, folder)["changed"]
    assert f"{stat.S_IMODE((folder / 'password').stat().st_mode):04o}" == "0440"


def test_check_mode_makes_nothing(login: ModuleType, tmp_path: Path) -> None:
    assert run(login, tmp_path / "login", check=True)["changed"]
    assert not list(tmp_path.iterdir())
