"""No line of the journal is hidden from the operator, whatever its bytes are: ansible/logs.yml."""

from __future__ import annotations

import json
import os
import subprocess
from importlib import util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> Any:
    spec = util.spec_from_file_location("journal", ROOT / "ansible/plugins/filter/journal.py")
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lines = load().journal_lines


def row(message: Any, at: int = 1_764_000_000_123_456, **more: Any) -> str:
    return json.dumps({"__REALTIME_TIMESTAMP": str(at), "CONTAINER_NAME": "berth-app-1", "MESSAGE": message, **more})


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            '{"time": "now", "level": "INFO", "logger": "a", "message": "signed in", "request_id": "b", "took": 3}',
            "INFO     signed in took=3",
        ),
        (
            '{"level": "ERROR", "message": "no", "exception": "Traceback\\n  boom"}',
            "ERROR    no\n    Traceback\n      boom",
        ),
        (
            '{"RequestMethod": "GET", "RequestHost": "x.net", "RequestPath": "/api", "DownstreamStatus": 502,'
            ' "Duration": 12345678, "ClientHost": "192.0.2.1", "level": "info"}',
            "ERROR    GET x.net/api 502 in 12 ms from=192.0.2.1",
        ),
        (r'{"level": "INFO", "message": "red \u001b[31m"}', r"INFO     red \x1b[31m"),
        (list(b"GET /\xff\xfe abc"), r"-        GET /\xff\xfe abc"),
        (list(b"red \x1b[31m abc"), r"-        red \x1b[31m abc"),
        (["first", "second"], "-        first second"),
        ([list(b"a\xff"), "b"], r"-        a\xff b"),
        ("käse\tabc", "-        käse\tabc"),
        (None, "-"),
    ],
    ids=[
        *("a service", "a traceback", "the edge", "control characters in JSON", "no UTF-8", "control characters"),
        *("twice", "twice, once no UTF-8", "umlaut and tab", "none"),
    ],
)
def test_a_line_is_shown_whatever_its_bytes_are(message: Any, shown: str) -> None:
    assert lines([row(message)]) == [f"2025-11-24 16:00:00.123 app {shown}"]


def test_services_stand_below_each_other_with_their_colour() -> None:
    rows = [row("a"), row("b", CONTAINER_NAME="berth-green-web-v2-1"), row("c", CONTAINER_NAME="other")]
    names = [line.split(" - ")[0][24:] for line in lines(rows)]
    assert names == ["app         ", "web-v2/green", "other       "]


def test_only_what_went_wrong_is_coloured() -> None:
    rows = [row(json.dumps({"level": level, "message": "x"})) for level in ("INFO", "WARNING", "ERROR")]
    assert [line.startswith("\x1b[") for line in load().journal_lines(rows, True)] == [False, True, True]
    assert "\x1b" not in "".join(lines(rows))


def test_lines_are_in_the_order_of_time_and_the_containers_only() -> None:
    host = json.dumps({"__REALTIME_TIMESTAMP": "1", "MESSAGE": "sshd"})
    first, second = row("first", 1_764_000_000_000_001), row("second", 1_764_000_001_000_000)
    assert [line.rsplit(" ", 1)[1] for line in lines([second, host, first])] == ["first", "second"]


def test_the_playbook_shows_them(tmp_path: Path) -> None:
    """The real playbook, with a journalctl that knows one request with odd bytes."""
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{row(list(b'odd ' + bytes([255]) + b' 12345678'))}\nEND\n")
    program.chmod(0o755)
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(
        "berth: {hosts: {here: {ansible_connection: local, ansible_become: false, ansible_python_interpreter: "
        "'{{ ansible_playbook_python }}'}}}\n"
    )
    done = subprocess.run(
        ["ansible-playbook", "ansible/logs.yml", "-i", str(inventory), "-e", "request=12345678"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert r"app -        odd \xff 12345678" in done.stdout
    assert "here: 1 line about 12345678 since -24h." in done.stdout
    assert "\x1b" not in done.stdout, "a pipe gets no colours"
