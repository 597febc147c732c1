"""What changes data runs in a systemd unit; the caller reads the answer from /run, and may disconnect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from berth.host import commands, files
from berth.host.refused import Failed, Refused

FOLDER = Path("/run/berth-backup")
# Refused, and nothing was changed: no mail is sent. Not 1, the exit status of a Python traceback.
REFUSED = 3
# No verb takes that long; each step has its own time limit.
LONGEST_SECONDS = 48 * 3600


def launch(name: str, *arguments: str, settled_by: str = "") -> str:
    """Run a verb in the unit of this name; return at its end what systemd-run reported of a failure.

    If its process is killed, systemd starts `settled_by`. Raises Refused where the unit is already running.
    """
    unit = ["systemd-run", "--quiet", "--wait", "--collect", f"--unit={name}"]
    unit += [f"--property=SuccessExitStatus={REFUSED}", "--property=UMask=0077"]
    unit += [f"--property=OnFailure={settled_by}"] if settled_by else []
    done = commands.run_bytes(*unit, "berth", "backup", *arguments, seconds=LONGEST_SECONDS)
    if done.returncode and b"already" in done.stderr:
        raise Refused(f"{name} is already running. Wait until it is done: systemctl status {name}")
    return " ".join(done.stderr.decode(errors="replace").split()) if done.returncode else ""


def tell(run_id: str, ended: dict[str, Any] | Refused) -> None:
    if isinstance(ended, Refused):
        ended = {"refused": ended.reason, "lines": ended.lines, "failed": isinstance(ended, Failed)}
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    files.write(FOLDER / f"{run_id}.json", json.dumps(ended), 0o600)


def told(run_id: str, failure: str = "") -> dict[str, Any]:
    """Return the answer of a run that has ended, once. Raises its refusal; without an answer, the failure."""
    place = FOLDER / f"{run_id}.json"
    answer = files.read_json(place)
    if answer is None:
        raise Failed(
            f"It ended without reporting a result{f' ({failure})' if failure else ''}. "
            "See: journalctl --unit='berth-*' --since=-1h"
        )
    place.unlink()
    if "refused" in answer:
        raise (Failed if answer["failed"] else Refused)(answer["refused"], lines=answer["lines"])
    return answer
