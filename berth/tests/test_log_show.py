"""`berth logs`: the lines of services for people, from a journal that a script stands in for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from berth.logs import show
from tests.support import ROOT

NAMES = "berth-blue-auth_service-1\nberth-green-auth_service-1\nberth-mongo-1\nberth-run-auth_service-0a1b2c3d\n"


def row(name: str | None, message: str) -> str:
    entry = {"__REALTIME_TIMESTAMP": "1764000000123456", "MESSAGE": message}
    return json.dumps(entry if name is None else {**entry, "CONTAINER_NAME": name})


ROWS = [
    row("berth-blue-auth_service-1", '{"level": "ERROR", "message": "no"}'),
    row(None, "dockerd says"),
    row("berth-run-auth_service-0a1b2c3d", "done"),
]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a journalctl in front, which writes down its arguments."""
    (tmp_path / "rows").write_text("\n".join(ROWS) + "\n")
    (tmp_path / "names").write_text(NAMES)
    script = tmp_path / "journalctl"
    script.write_text(
        f'#!/bin/sh\ncd {tmp_path}\ncase $1 in --field=*) cat names;; *) echo "$*" >asked; cat rows;; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_the_last_lines_of_all_containers_are_shown_without_colour_in_a_pipe(
    journal: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert show.main([]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "2025-11-24 16:00:00.123 auth_service/blue  ERROR    no",
        "2025-11-24 16:00:00.123 auth_service/run   -        done",
    ]
    assert (journal / "asked").read_text().split()[-2:] == ["--lines=50", "_SYSTEMD_UNIT=docker.service"]


def test_one_service_is_followed_on_both_colours_from_a_moment_on(
    journal: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert show.main(["-f", "--service", "auth_service", "--since", "-1h"]) == 0
    assert (journal / "asked").read_text().split()[-4:] == [
        "--since=-1h",
        "--follow",
        "CONTAINER_NAME=berth-blue-auth_service-1",
        "CONTAINER_NAME=berth-green-auth_service-1",
    ]
    assert "ERROR" in capfd.readouterr().out


@pytest.mark.usefixtures("journal")
def test_a_service_that_is_not_there_is_answered_with_those_that_are(capfd: pytest.CaptureFixture[str]) -> None:
    assert show.main(["--service=auth"]) == 1
    assert capfd.readouterr().err == "No service auth has logged; the journal knows auth_service, mongo.\n"


def test_a_reader_who_has_seen_enough_gets_no_traceback(journal: Path) -> None:
    (journal / "rows").write_text("\n".join(ROWS * 20_000) + "\n")
    command = f"{sys.executable} -c 'import sys; from berth.logs import show; sys.exit(show.main([]))' | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.stdout.endswith("ERROR    no\n")
    assert done.stderr == ""


def test_what_went_wrong_is_coloured_on_a_terminal() -> None:
    [coloured, _] = show.shown(ROWS, coloured=True, width=10)
    assert coloured.startswith("\x1b[31m")
