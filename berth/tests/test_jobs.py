"""Jobs: their timers are those of the live release, and a run of one is skipped where data is replaced."""

from __future__ import annotations

import shutil
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from berth.host import commands
from berth.host.live import Live
from berth.host.lock import Lock
from berth.host.refused import Refused
from berth.once.command import main
from berth.release import jobs
from berth.stack import description, kept
from berth.tests import compose
from berth.tests.release_world import NEW, OLD, Worlds, settings_of
from berth.tests.test_once import Engine, engine, worlds  # noqa: F401  # fixtures


def services(**more: Any) -> dict[str, Any]:
    return {"services": {"report": {"image": "x/report:1", "profiles": ["job"], **more}}}


@pytest.mark.parametrize(
    ("service", "sentence"),
    [
        ({}, "berth.schedule of service report is missing: it is of profile job."),
        ({"labels": {"berth.schedule": ""}}, 'berth.schedule of service report is "": a value is needed.'),
        (
            {"labels": {"berth.schedule": "daily"}, "profiles": ["release"]},
            "berth.schedule of service report is for services of profile job.",
        ),
        (
            {"labels": {"berth.schedule": "daily"}, "profiles": ["release", "job"]},
            "berth.schedule of service report is not for profile release, too.",
        ),
    ],
)
def test_a_job_has_a_schedule_and_nothing_else_has_one(service: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        description.read(services(**{"labels": {"berth.writes": "true"}, **service}))


def test_the_image_of_a_job_belongs_to_the_release() -> None:
    known = description.read(services(labels={"berth.schedule": "Mon  03:00"}))
    assert (known.names, [(job.name, job.schedule) for job in known.jobs]) == ([], [("report", "Mon 03:00")])
    assert known.images("x", "1") == {"x/report:1": "report"}


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jobs, "UNITS", tmp_path / "system")
    return tmp_path / "system"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Return what is asked of systemd; compose files are read."""
    seen: list[tuple[str, ...]] = []

    def run(*command: str, **environment: Any) -> CompletedProcess[str]:
        if command[0] == "docker":
            return compose.run(*command, **environment)
        seen.append(command)
        return CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(commands, "run", run)
    return seen


def keep(root: Path, release: str, text: str) -> Live:
    folder = root / "releases" / release
    folder.mkdir(parents=True)
    (folder / "docker-compose.prod.yml").write_text(text)
    kept.forget()
    return Live(release, "blue")


def test_timers_follow_what_is_live(tmp_path: Path, units: Path, asked: list[tuple[str, ...]]) -> None:
    settings = settings_of(tmp_path)
    new = keep(tmp_path, NEW, compose.with_job("Mon 03:00"))
    assert jobs.write(settings, new) == {"report": "Mon 03:00"}
    assert "OnCalendar=Mon 03:00\n" in (units / "berth-job-report.timer").read_text()
    assert "ExecStart=/usr/local/sbin/berth job report\n" in (units / "berth-job-report.service").read_text()
    assert asked == [("systemctl", "daemon-reload"), ("systemctl", "restart", "berth-job-report.timer")]
    # A rollback brings back the schedule of the earlier release: none.
    asked.clear()
    assert jobs.write(settings, keep(tmp_path, OLD, compose.TEXT)) == {}
    assert list(units.iterdir()) == []
    assert asked == [("systemctl", "stop", "berth-job-report.timer"), ("systemctl", "daemon-reload")]
    assert jobs.write(settings, None) == {}


def test_timers_of_a_release_without_jobs_are_removed_after_it(
    tmp_path: Path, units: Path, asked: list[tuple[str, ...]]
) -> None:
    settings, old = settings_of(tmp_path), keep(tmp_path, OLD, compose.TEXT)
    assert jobs.schedule(settings, old) == ""
    assert asked == []
    units.mkdir()
    (units / "berth-job-report.timer").touch()
    assert jobs.schedule(settings, old) == ""
    assert asked == [("systemctl", "restart", "berth-jobs.service")]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_systemd_itself_reads_the_schedules() -> None:
    jobs.refuse_invalid(description.read(services(labels={"berth.schedule": "*-*-* 02:30:00 Europe/Rome"})))
    with pytest.raises(Refused, match=r'berth\.schedule of service report is "every day": Failed to parse'):
        jobs.refuse_invalid(description.read(services(labels={"berth.schedule": "every day"})))


# --- A run of one ---


def test_a_job_runs_its_own_command_under_a_name_of_its_own(worlds: Worlds, engine: Engine) -> None:  # noqa: F811
    worlds.keep(OLD, compose.with_job("03:00"))
    engine.status = 4
    assert main(["job", "report"]) == 4
    at = engine.words.index("run")
    assert engine.words[at:] == [
        *("run", "--rm", "--no-deps", "--no-TTY", "--name=berth-job-report", "--label=berth.by=its timer", "report")
    ]
    assert engine.notes[-1].endswith("the job in report of release 1.0 (blue): it ended with 4 after 0.0 s")


@pytest.mark.parametrize("verb", ["restore", "upgrade"])
def test_a_job_is_skipped_while_data_is_replaced(worlds: Worlds, engine: Engine, verb: str) -> None:  # noqa: F811
    worlds.keep(OLD, compose.with_job("03:00"))
    Lock(settings_of(worlds.root).releases).begin(verb, "everything", "eve@laptop", phase="filling")
    assert main(["job", "report"]) == 0
    assert engine.words == []
    assert engine.notes[0].startswith(f"Job report was skipped: eve@laptop has been running {verb} everything")


def test_a_job_that_a_rollback_has_just_removed_is_skipped(engine: Engine) -> None:  # noqa: F811
    assert main(["job", "report"]) == 0
    assert engine.notes == ["Job report was skipped: the live release has no such job."]
