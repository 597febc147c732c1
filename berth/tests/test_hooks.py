"""Hooks: what they are started with, what is said of one that fails, and those of a backup."""

from __future__ import annotations

import shlex
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from berth.backup.records import Records
from berth.backup.run import run
from berth.backup.settings import Settings
from berth.host import commands
from berth.host.hooks import Hooks
from berth.host.refused import Refused
from berth.tests.backup_host import Host
from berth.tests.test_backup_programs import host, put_in, settings  # noqa: F401  # fixtures

REAL = commands.run


class Unit:
    """Takes the place of systemd: runs what a unit would, as it would."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []

    def run(self, *command: str, **words: Any) -> CompletedProcess[str]:
        self.ran.append(command)
        if command[0] != "systemd-run":
            return CompletedProcess(command, 0, "", "")
        variables = dict(word.removeprefix("--setenv=").split("=", 1) for word in command if "--setenv=" in word)
        return REAL(*command[command.index("timeout") :], **(words | variables))

    @property
    def journal(self) -> list[tuple[str, ...]]:
        return [command for command in self.ran if command[0] == "systemd-cat"]


@pytest.fixture
def unit(monkeypatch: pytest.MonkeyPatch) -> Unit:
    unit = Unit()
    monkeypatch.setattr(commands, "run", unit.run)
    return unit


def put(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    place = folder / name
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)
    return place


def test_a_hook_gets_facts_as_variables_of_one_line(tmp_path: Path, unit: Unit) -> None:
    put(tmp_path, "after-release", f'env | grep "^BERTH_" | sort > {shlex.quote(str(tmp_path))}/told')
    hooks = Hooks(tmp_path, 5)
    assert hooks.after("release", release="1.1", result="failed", reason="It broke.\nlast words") == ""
    told = dict(line.split("=", 1) for line in (tmp_path / "told").read_text().splitlines())
    assert told == {
        "BERTH_HOOK": "after-release",
        "BERTH_VERB": "release",
        "BERTH_RELEASE": "1.1",
        "BERTH_RESULT": "failed",
        "BERTH_REASON": "It broke. last words",
        **dict.fromkeys(("BERTH_DOMAIN", "BERTH_BY", "BERTH_RUN", "BERTH_PREVIOUS", "BERTH_COLOUR"), ""),
    }
    assert unit.journal == [("systemd-cat", "--identifier=berth-hook-after-release")]


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo one; echo two; exit 3", "Hook before-release ended with 3: two."),
        ("exit 1", "Hook before-release ended with 1."),
        ("echo waiting; sleep 60", "Hook before-release did not end within 1 s: waiting."),
    ],
)
def test_a_hook_that_fails_is_named_with_its_status_and_last_line(
    tmp_path: Path, unit: Unit, script: str, sentence: str
) -> None:
    put(tmp_path, "before-release", script)
    put(tmp_path, "after-release", script)
    hooks = Hooks(tmp_path, 1)
    with pytest.raises(Refused) as refused:
        hooks.before("release")
    assert refused.value.reason == f"{sentence} Nothing was changed."
    assert hooks.after("release") == sentence.replace("before", "after")
    assert len(unit.journal) == 2


def test_what_a_killed_program_left_running_is_stopped_first(tmp_path: Path, unit: Unit) -> None:
    put(tmp_path, "after-release", "exit 0")
    Hooks(tmp_path, 5).after("release")
    left = ("hook-before-release.service", "hook-after-release.service")
    assert unit.ran[0] == ("systemctl", "stop", *left)


def test_a_hook_that_is_not_there_is_no_fault(tmp_path: Path, unit: Unit) -> None:
    put(tmp_path, "before-upgrade", "exit 1")
    hooks = Hooks(tmp_path, 5)
    for verb in ("release", "upgrade"):
        hooks.before(verb)
        assert hooks.after(verb) == ""
    assert unit.ran == []


@pytest.mark.usefixtures("host", "unit")
def test_a_backup_has_hooks_before_and_after(settings: Settings) -> None:  # noqa: F811
    told = settings.root / "told"
    say = f'echo "$BERTH_HOOK $BERTH_BY $BERTH_RESULT $BERTH_DOMAIN" >> {shlex.quote(str(told))}'
    for name in ("before-backup", "after-backup"):
        put(settings.root / "hooks", name, say)
    outcome = run(settings, Records(settings), "scheduled")
    assert told.read_text().splitlines() == [
        "before-backup scheduled  www.example.net",
        "after-backup scheduled done www.example.net",
    ]
    assert "note" not in outcome
    put(settings.root / "hooks", "after-backup", "echo no network; exit 1")
    outcome = run(settings, Records(settings), "scheduled")
    assert outcome["targets"] == {"store": True, "bucket": True}
    assert outcome["note"] == "Hook after-backup ended with 1: no network."
    assert Records(settings).history(1)[0]["note"] == outcome["note"]


@pytest.mark.usefixtures("unit")
def test_a_backup_whose_hook_before_fails_is_refused_before_a_target_is_asked(
    settings: Settings,  # noqa: F811
    host: Host,  # noqa: F811
) -> None:
    put(settings.root / "hooks", "before-backup", "echo not now; exit 2")
    records, steps = Records(settings), host.steps
    reason = "Hook before-backup ended with 2: not now. Nothing was changed."
    with pytest.raises(Refused, match=reason):
        run(settings, records, "scheduled")
    # Only systemd is asked, whether the host goes down.
    assert host.steps == steps + 1
    # It counts as a failed backup: the metric and the alert are those of any other.
    known = records.state()
    assert {name: (one["result"], one["reason"]) for name, one in known["targets"].items()} == {
        "store": (False, reason),
        "bucket": (False, reason),
    }
    assert "begun" not in known
