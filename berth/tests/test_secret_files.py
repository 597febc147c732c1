"""The files that `berth secrets` writes: each service its own, nothing left over, and never half of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from berth import secrets as berth_secrets
from berth.tests.cut_off import CutOff, Killed

OLD = {"auth_service": {"mongo_uri": "old"}, "redis": {"users.acl": "old", "gone": "old"}}
OWNERS = {"auth_service": 10001, "redis": 999}
NEW = {"auth_service": {"mongo_uri": "new", "redis_uri": "new"}, "redis": {"users.acl": "new"}}


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Who would own what: giving files away takes root."""
    found: dict[str, int] = {}
    monkeypatch.setattr(os, "chown", lambda place, uid, _: found.update({Path(place).name: uid}))
    return found


def contents(directory: Path) -> dict[str, dict[str, str]]:
    return {
        folder.name: {file.name: file.read_text() for file in folder.iterdir()}
        for folder in directory.iterdir()
        if any(folder.iterdir())
    }


def test_each_service_reads_its_own_and_nothing_is_left_over(owners: dict[str, int], tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    for files in (OLD, NEW):
        berth_secrets.write(directory, files, OWNERS)
        assert contents(directory) == files
    assert directory.stat().st_mode & 0o777 == 0o711
    assert {folder.stat().st_mode & 0o777 for folder in directory.iterdir()} == {0o500}
    assert (directory / "redis/users.acl").stat().st_mode & 0o777 == 0o400
    assert (owners["auth_service"], owners[".users.acl.new"]) == (10001, 999)


def test_cut_off_at_any_step_each_file_is_old_or_new_and_the_next_time_all_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(host: CutOff) -> None:
        def step(name: str, kind: Any) -> None:
            real: Callable[..., Any] = getattr(kind, name)
            monkeypatch.setattr(kind, name, lambda *given, **more: host.step(lambda: real(*given, **more)))

        monkeypatch.setattr(os, "chown", lambda *_: host.step(lambda: None))
        for name in ("rename", "mkdir"):
            step(name, Path)

    def begun(directory: Path) -> Path:
        monkeypatch.setattr(os, "chown", lambda *_: None)
        berth_secrets.write(directory, OLD, OWNERS)
        return directory

    whole = CutOff()
    directory = begun(tmp_path / "whole")
    counted(whole)
    berth_secrets.write(directory, NEW, OWNERS)
    monkeypatch.undo()
    assert whole.steps > 10
    for number in range(whole.steps):
        directory = begun(tmp_path / str(number))
        counted(CutOff(number))
        with pytest.raises(Killed):
            berth_secrets.write(directory, NEW, OWNERS)
        monkeypatch.undo()
        for service, files in contents(directory).items():
            for name, text in files.items():
                assert name.startswith(".") or text in (OLD.get(service, {}).get(name), NEW.get(service, {}).get(name))
        monkeypatch.setattr(os, "chown", lambda *_: None)
        berth_secrets.write(directory, NEW, OWNERS)
        assert contents(directory) == NEW
        monkeypatch.undo()


@pytest.mark.usefixtures("owners")
def test_the_command_writes_or_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = tmp_path / ".env"
    assert berth_secrets.main(["write", str(env), str(tmp_path / "secrets")]) == 1
    assert "No such file" in capsys.readouterr().err
    env.write_text("MONGO_URI=''\n")
    assert berth_secrets.main(["check", str(env)]) == 1
    assert "is missing" in capsys.readouterr().err
    assert berth_secrets.main([]) == 2
    assert "usage: berth secrets" in capsys.readouterr().err
    monkeypatch.setattr(berth_secrets, "secrets", lambda *_: NEW)
    monkeypatch.setattr(berth_secrets, "uids", lambda _: OWNERS)
    assert berth_secrets.main(["check", str(env)]) == 0
    assert not (tmp_path / "secrets").exists()
    assert berth_secrets.main(["write", str(env), str(tmp_path / "secrets")]) == 0
    assert contents(tmp_path / "secrets") == NEW
