"""Jobs: services of profile job, which timers of the host run in the live release.

Their units are in /run, so that they cannot differ from what is live: berth-jobs.service writes them at boot and at the
end of each release and rollback.
"""

from __future__ import annotations

from pathlib import Path

from berth.host import commands, files
from berth.host.commands import last_lines
from berth.host.live import Live
from berth.host.refused import Refused
from berth.release.settings import Settings
from berth.stack.description import Description

UNITS = Path("/run/systemd/system")
NAME = "berth-job-"

SERVICE = """\
# Written by berth jobs.
[Unit]
Description=Job {name} of the live release
After=docker.service

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/berth job {name}
# The container's lines are in the journal already; those on standard error are for the mail about a failure.
StandardOutput=null
"""
TIMER = """\
# Written by berth jobs.
[Unit]
Description=Schedule of job {name}

[Timer]
OnCalendar={schedule}
AccuracySec=1s
# A run that was missed while the host was off starts after boot.
Persistent=true
"""


def refuse_invalid(known: Description) -> None:
    """Raise Refused, naming service and key, where systemd cannot read a schedule."""
    for job in known.jobs:
        done = commands.run("systemd-analyze", "calendar", "--", job.schedule)
        if done.returncode:
            why = (last_lines(done) or ["systemd does not know it"])[-1]
            key = f"berth.schedule of service {job.name}"
            raise Refused(f'docker-compose.prod.yml: {key} is "{job.schedule}": {why}', "compose", last_lines(done))


def schedule(settings: Settings, live: Live | None) -> str:
    """Have the jobs of the live release scheduled, and no others. Return what is said of a failure."""
    known = settings.kept(live.release).known.jobs if live else ()
    if not known and not _written():
        return ""
    # In a unit of its own: some callers may not write to /run.
    done = commands.run("systemctl", "restart", "berth-jobs.service", seconds=120)
    if not done.returncode:
        return ""
    why = (last_lines(done) or ["no output"])[-1]
    return f"The jobs could not be scheduled: {why} Try again: sudo systemctl restart berth-jobs"


def write(settings: Settings, live: Live | None) -> dict[str, str]:
    """Write and start the timers of the live release, and remove all others. Return job -> schedule."""
    known = {job.name: job.schedule for job in settings.kept(live.release).description.jobs} if live else {}
    wanted = {
        f"{NAME}{name}.{kind}": text.format(name=name, schedule=when)
        for name, when in known.items()
        for kind, text in (("service", SERVICE), ("timer", TIMER))
    }
    gone = [place for place in _written() if place.name not in wanted]
    if timers := [place.name for place in gone if place.suffix == ".timer"]:
        commands.run("systemctl", "stop", *timers)
    for place in gone:
        place.unlink()
    UNITS.mkdir(parents=True, exist_ok=True)
    for name, text in wanted.items():
        files.write(UNITS / name, text)
    commands.run("systemctl", "daemon-reload")
    if timers := [name for name in wanted if name.endswith(".timer")]:
        # Restarted, since a timer that runs keeps its schedule.
        done = commands.run("systemctl", "restart", *timers)
        if done.returncode:
            raise Refused(f"The timers do not start: {(last_lines(done) or ['no output'])[-1]}")
    return known


def _written() -> list[Path]:
    return sorted(UNITS.glob(f"{NAME}*")) if UNITS.is_dir() else []
