"""A run continues in a systemd unit of its own; its caller follows it through files in /run.

Not on the disk, which may be full: they concern this boot only.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from berth.host import commands, files
from berth.host.refused import Refused

FOLDER = Path("/run/berth-release")
# No release takes that long; each step has its own time limit.
LONGEST_SECONDS = 6 * 3600


def launch(run_id: str) -> str:
    """Start this run in its unit. Return once traffic is switched to the release, or will not be.

    If the process is killed before its end, another one takes over (berth-release-settle.service). Returns what
    systemd-run reported: where it could not start the unit, there is no other message.
    """
    return _launch("--service-type=notify", "--property=TimeoutStartSec=infinity", "berth", "release", "run", run_id)


def launch_to_end(*arguments: str) -> str:
    """Run something else in that unit. Return at its end, as `launch` does."""
    return _launch("--wait", "berth", "release", *arguments)


def _launch(*arguments: str) -> str:
    unit = ("systemd-run", "--quiet", "--collect", "--unit=berth-release")
    settled = "--property=OnFailure=berth-release-settle.service"
    done = commands.run(*unit, settled, *arguments, seconds=LONGEST_SECONDS)
    return " ".join(done.stderr.split()) if done.returncode else ""


def ready() -> None:
    """Let `launch` return."""
    if place := os.environ.pop("NOTIFY_SOCKET", ""):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", place)


def clear() -> None:
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    for one in FOLDER.iterdir():
        one.unlink()


def tell_switched(run_id: str, answer: dict[str, Any]) -> None:
    _tell(run_id, "switched", answer)


def tell_ended(run_id: str, ended: dict[str, Any] | Refused) -> None:
    """Record how it ended: an answer, or a refusal."""
    if isinstance(ended, Refused):
        ended = {"refused": ended.answer}
    _tell(run_id, "ended", ended)


def switched(run_id: str) -> dict[str, Any] | None:
    return _told(run_id, "switched")


def ended(run_id: str) -> dict[str, Any] | None:
    """Return how it ended, None while it is running; raise its refusal."""
    told = _told(run_id, "ended")
    if told and "refused" in told:
        refused = told["refused"]
        raise Refused(refused["reason"], refused["guilty"], refused["lines"])
    return told


def judge(run_id: str, objection: str) -> None:
    """Record the controller's check from outside; without an objection it passed."""
    _tell(run_id, "judged", {"objection": objection})


def judgement(run_id: str) -> str | None:
    """Return the controller's objection, empty where it has none; None until it reports."""
    told = _told(run_id, "judged")
    return None if told is None else str(told["objection"])


def _tell(run_id: str, what: str, document: dict[str, Any]) -> None:
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    # It contains headers that are secret.
    files.write(FOLDER / f"{run_id}.{what}", json.dumps(document), 0o600)


def _told(run_id: str, what: str) -> dict[str, Any] | None:
    return files.read_json(FOLDER / f"{run_id}.{what}")
