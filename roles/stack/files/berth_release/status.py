"""What an operator wants to know at a glance."""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from typing import Any

from berth_release.edge import Edge
from berth_release.engine import containers, run
from berth_release.records import Records, is_alive
from berth_release.settings import Settings

HISTORY_LINES = 5


def status(settings: Settings, edge: Edge, records: Records) -> dict[str, Any]:
    live = edge.live()
    history = records.history()
    disk = shutil.disk_usage(settings.root)
    return {
        "live": live.signature if live else "nothing",
        "since": next((line["at"] for line in reversed(history) if line["result"] == "live"), ""),
        "maintenance": bool(edge.maintenance_key()),
        "services": {
            **{one.name: one.state for one in containers()},
            **{name: state for name, state in _platform().items() if name},
        },
        "certificate": _certificate(settings),
        "disk_free_percent": round(100 * disk.free / disk.total),
        "disk_free_gib": round(disk.free / 1024**3, 1),
        "timers": _timers(),
        "security_updates": _security_updates(),
        "lock": _lock(records),
        "rolled_back": records.rolled_back(),
        "history": [
            {name: line[name] for name in ("at", "by", "verb", "from", "to", "result", "seconds", "reason")}
            for line in history[-HISTORY_LINES:]
        ],
    }


def _platform() -> dict[str, str]:
    form = "{{.Names}}|{{.Status}}"
    listed = run("docker", "ps", "--all", "--filter=label=com.docker.compose.project=berth", "--format", form)
    return dict(line.split("|", 1) for line in listed.stdout.splitlines())


def _certificate(settings: Settings) -> dict[str, Any]:
    """Return whose certificate the edge shows and for how long it is good."""
    try:
        pem = _shown(settings)
    except OSError as error:
        return {"problem": str(error)}
    done = run("openssl", "x509", "-noout", "-issuer", "-enddate", given=pem)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    end = found.get("notAfter", "")
    days = (ssl.cert_time_to_seconds(end) - time.time()) / 86400 if end else 0
    return {"issuer": found.get("issuer", ""), "until": end, "days_left": round(days, 1)}


def _shown(settings: Settings) -> str:
    context = ssl._create_unverified_context()  # noqa: S323  # what it shows is asked, not whether it is good
    with (
        socket.create_connection((settings.address, 443), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=settings.domain) as secure,
    ):
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")


def _timers() -> dict[str, str]:
    """Return how and when what Berth does on schedule ended last: backups, pruning and the like."""
    listed = run("systemctl", "list-timers", "--all", "--no-legend", "--plain", "berth-*")
    found = {}
    for line in listed.stdout.splitlines():
        service = line.split()[-1]
        shown = run("systemctl", "show", service, "--property=Result,ExecMainExitTimestamp", "--value").stdout.split(
            "\n"
        )
        found[service] = f"{shown[0]}, {shown[1]}" if shown[1] else "has not run yet"
    return found


def _security_updates() -> int:
    done = run("apt-get", "--simulate", "--quiet", "upgrade")
    return sum(line.startswith("Inst") and "security" in line.lower() for line in done.stdout.splitlines())


def _lock(records: Records) -> str:
    who = records.current()
    if who is None:
        return "free"
    state = "running" if records.is_guarded() else "waiting for its controller" if is_alive(who) else "stale"
    if not is_alive(who) and state == "running":
        state += " without its controller"
    return f"{records.describe(who)}: {state}"
