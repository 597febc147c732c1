"""The module that writes the files of role monitoring, called as a play calls it: files in, an answer out."""

from __future__ import annotations

import getpass
import io
import json
import stat
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

MODULE = Path(__file__).parents[1] / "roles/monitoring/library/monitoring_files.py"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run() -> Run:
    spec = util.spec_from_file_location("monitoring_files", MODULE)
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*entries: dict[str, Any], check: bool = False) -> dict[str, Any]:
        files = [{"owner": getpass.getuser(), **entry} for entry in entries]
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


def test_files_and_folders_are_written_with_what_leads_to_them_and_found_in_order_afterwards(
    run: Run, tmp_path: Path
) -> None:
    file, folder = tmp_path / "config/a.yml", tmp_path / "data/own"
    entries = [{"path": str(file), "content": "a: 1\n"}, {"path": str(folder), "mode": "0700"}]
    assert run(*entries)["written"] == [str(file), str(folder)]
    assert (file.read_text(), mode(file), mode(folder)) == ("a: 1\n", "0644", "0700")
    assert run(*entries)["written"] == []


def test_only_what_differs_is_written_and_said(run: Run, tmp_path: Path) -> None:
    same, other = tmp_path / "same", tmp_path / "other"
    entries = [{"path": str(same), "content": "1"}, {"path": str(other), "content": "1"}]
    run(*entries)
    other.write_text("2")
    answer = run(*entries)
    assert (answer["changed"], answer["written"]) == (True, [str(other)])
    assert (answer["diff"][0]["before"], answer["diff"][0]["after"], other.read_text()) == ("2", "1", "1")


def test_permissions_that_somebody_changed_are_put_right(run: Run, tmp_path: Path) -> None:
    entry = {"path": str(tmp_path / "secret"), "content": "", "mode": "0400"}
    run(entry)
    Path(entry["path"]).chmod(0o644)
    assert run(entry)["changed"]
    assert mode(Path(entry["path"])) == "0400"


def test_check_mode_says_what_would_change_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "new/file"
    # An account that an earlier task would have made.
    entry = {"path": str(file), "content": "1", "owner": "nobody-has-this-name"}
    assert run(entry, check=True)["written"] == [str(file)]
    assert not file.parent.exists()
    assert "no account nobody-has-this-name" in run(entry)["msg"]
