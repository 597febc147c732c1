"""What an operator wants to know at a glance."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
from contextlib import suppress
from typing import Any

from berth.host import clock, commands, system
from berth.host.live import COLOURS
from berth.host.lock import Lock, describe, is_alive
from berth.release.expected import missing, playbook, show, state_of
from berth.release.host import Host
from berth.release.recovery import RESTORE
from berth.release.settings import Settings

HISTORY_LINES = 5
CERTIFICATE_DAYS = 14
DISK_PERCENT = 10


def status(host: Host) -> dict[str, Any]:
    settings, edge, history = host.settings, host.edge, host.history.releases()
    live = edge.live()
    disk = shutil.disk_usage(settings.root)
    listed = commands.run(*system.LIST_CONTAINERS)
    containers = None if listed.returncode else system.containers(listed.stdout)
    ours = ("berth", *(f"berth-{colour}" for colour in COLOURS))
    known = {
        "site": settings.domain,
        "live": live.signature if live else "nothing",
        "since": next((line["at"] for line in reversed(history) if line["result"] == "live"), ""),
        "maintenance": bool(edge.maintenance_key()),
        "maintenance_since": edge.maintenance_since(),
        "lock": _lock(host.lock),
        "run": _run(host.lock),
        "services": {one.name: state_of(one) for one in containers or [] if one.project in ours},
        "certificate": _certificate(settings),
        "disk_free_percent": round(100 * disk.free / disk.total),
        "disk_free_gib": round(disk.free / 1024**3, 1),
        "timers": _timers(),
        "failed_units": _failed_units(),
        "backups": _backups(settings),
        "security_updates": _security_updates(),
        "rolled_back": host.history.rolled_back(),
        "history": [
            {name: line.get(name, "") for name in ("at", "by", "verb", "from", "to", "result", "seconds", "reason")}
            for line in history[-HISTORY_LINES:]
        ],
    }
    lacks = missing(settings, live, containers)
    # What does not stay up is said once, with what brings it back.
    named = " ".join(lack["what"] for lack in lacks)
    red = [one for one in _red(known) if not (one["what"].startswith("unit ") and one["what"].split()[1] in named)]
    return {**known, "missing": lacks, "red": lacks + red}


def _red(known: dict[str, Any]) -> list[dict[str, str]]:
    """What is there and not well, each with what to type next."""
    red = []

    def add(what: str, fix: str) -> None:
        red.append({"what": what, "fix": fix})

    if known["run"] and not known["run"]["running"]:
        add(f"{known['run']['what']} was interrupted ({known['run']['phase']})", known["run"]["settle"])
    if known["live"] == "nothing":
        add("no release is live: the site answers 503", playbook("release", "-e", "release=<version>"))
    certificate = known["certificate"]
    if problem := certificate.get("problem"):
        add(f"the edge serves no certificate: {problem}", playbook("doctor"))
    elif certificate["days_left"] < CERTIFICATE_DAYS:
        add(f"the certificate expires in {certificate['days_left']:.0f} days", playbook("doctor"))
    if known["disk_free_percent"] < DISK_PERCENT:
        add(f"the disk has {known['disk_free_percent']} % free", "docs/runbooks/DiskFull.md")
    for name in known["failed_units"]:
        add(f"unit {name} failed", f"sudo journalctl --unit={name} --lines=20")
    backups = known["backups"]
    for name, target in backups.get("targets", {}).items():
        for problem in target["problems"]:
            add(f"backup to {name}: {problem}", "docs/runbooks/BackupFailed.md")
        age, most = target["age_hours"], backups["max_age_hours"]
        if age > most if age is not None else not backups["new"]:
            old = "there is none yet" if age is None else f"the newest is {age:.0f} h old, more than {most}"
            add(f"backup to {name}: {old}", playbook("backup"))
    return red


def _failed_units() -> list[str]:
    return system.first_words(commands.run(*system.LIST_FAILED, "berth-*").stdout)


def _certificate(settings: Settings) -> dict[str, Any]:
    """Return whose certificate the edge serves, and for how long it is valid."""
    try:
        pem = _shown(settings)
    except OSError as error:
        return {"problem": str(error)}
    done = commands.run("openssl", "x509", "-noout", "-issuer", "-enddate", given=pem)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    end = found.get("notAfter", "")
    seconds = ssl.cert_time_to_seconds(end) if end else 0
    return {
        "issuer": found.get("issuer", ""),
        "until": clock.moment(seconds),
        "days_left": round((seconds - clock.time()) / 86400, 1),
    }


def _shown(settings: Settings) -> str:
    context = ssl._create_unverified_context()  # noqa: S323  # it is looked at, not trusted
    with (
        socket.create_connection((settings.address, 443), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=settings.domain) as secure,
    ):
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")


def _timers() -> dict[str, dict[str, str]]:
    """Return how and when what Berth does on schedule ended last: backups, pruning and the like."""
    listed = commands.run("systemctl", "list-timers", "--all", "--no-legend", "--plain", "berth-*")
    services = [line.split()[-1] for line in listed.stdout.splitlines() if line.strip()]
    return {
        name: {
            "result": "running" if unit["ActiveState"] == "activating" else unit["Result"],
            "at": _iso(unit["ExecMainExitTimestamp"]),
        }
        for name, unit in show(services).items()
    }


def _iso(timestamp: str) -> str:
    """Return systemd's "@<seconds>" as a moment; empty where there is none."""
    return clock.moment(int(timestamp[1:])) if timestamp[1:].isdigit() and timestamp != "@0" else ""


def _backups(settings: Settings) -> dict[str, Any]:
    """Return what backups are known without asking a repository; nothing on a host without it."""
    with suppress(OSError, ValueError):
        known = json.loads(commands.run("berth", "backup", "status").stdout or "{}")
        if "targets" in known:
            place = settings.root / "backup/settings.json"
            most = json.loads(place.read_text())["max_age_hours"]
            # A new host makes its first one in the night.
            new = clock.time() - place.stat().st_mtime < most * 3600
            return {**known, "max_age_hours": most, "new": new}
    return {}


def _security_updates() -> int:
    return system.security_updates(commands.run("apt-get", "--simulate", "--quiet", "upgrade").stdout)


def _run(lock: Lock) -> dict[str, Any]:
    """Return run is changing the site, or began to and did not end; nothing where nobody does."""
    run = lock.current()
    if run is None:
        return {}
    return {
        "what": f"{run.verb} {run.release} of {run.by}",
        "since": run.since,
        "phase": run.phase,
        # Before its first step it is the controller's turn; from there on, the program's.
        "running": lock.is_held() or (run.phase == "begun" and is_alive(run)),
        "alone": not is_alive(run),
        "settle": f"sudo berth {'backup' if run.verb == RESTORE else 'release'} settle",
    }


def _lock(lock: Lock) -> str:
    run = lock.current()
    if run is None:
        return "free"
    state = "running" if lock.is_held() else "waiting for its controller" if is_alive(run) else "stale"
    if not is_alive(run) and state == "running":
        state += " without its controller"
    return f"{describe(run)}: {state}"
