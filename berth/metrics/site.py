"""Metrics from the site's records: the live release, the result of the last attempt, maintenance, ages of secrets."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from berth.host import files
from berth.host.live import ROUTES, read_live
from berth.host.lock import Lock
from berth.metrics.exposition import Metrics
from berth.stack.applied import Applied

# The verbs that pass gates.
JUDGED = {"release", "rollback", "upgrade"}


def releases(metrics: Metrics, root: Path) -> None:
    if live := read_live(root / ROUTES):
        labels = {"release": live.release, "colour": live.colour}
        metrics.add("berth_release_info", "The live release.", 1, labels)
    history = _history(root / "releases.jsonl")
    if went_live := [line for line in history if line["result"] == "live" and "to" in line]:
        meaning = "Whether the live release was started without a valid signature, in an emergency."
        metrics.add("berth_release_unsigned", meaning, int(bool(went_live[-1].get("unsigned"))))
    meaning = "Attempts to release or roll back, by result."
    for (verb, result), count in sorted(Counter((line["verb"], line["result"]) for line in history).items()):
        metrics.add("berth_release_attempts_total", meaning, count, {"verb": verb, "result": result})
    judged = [line for line in history if _was_judged(line)]
    if judged:
        last = judged[-1]
        metrics.add(
            "berth_release_last_attempt_success", "Whether the last one went live.", int(last["result"] == "live")
        )
        metrics.add("berth_release_last_attempt_timestamp_seconds", "When the last one ended.", _seconds(last["at"]))
        metrics.add("berth_release_last_attempt_seconds", "How long the last one took.", float(last["seconds"]))
    run = Lock(root / "releases").current()
    meaning = "When the current attempt started; 0 for none."
    metrics.add("berth_release_running_since_seconds", meaning, run.began if run else 0)
    closed = root / "traefik/dynamic/maintenance.yml"
    since = closed.stat().st_mtime if closed.exists() else 0
    metrics.add(
        "berth_maintenance_since_seconds", "When the site was closed for maintenance; 0 while it is open.", since
    )


def _was_judged(line: dict[str, Any]) -> bool:
    """Tell whether a release reached its gates.

    Without a colour nothing was started: the release is unknown, or its images could not be pulled.
    """
    return line["verb"] in JUDGED and line.get("colour") != ""


def backups(metrics: Metrics, settings: Path) -> None:
    """Measure since when backups are configured. `berth backup` writes their results, once there are any."""
    known = files.read_json(settings)
    if known is None:
        return
    verbs = ["run", "check", *(["oplog"] if known["mongo"] else [])]
    verbs += ["drill"] if known["mongo"] or known.get("databases") else []
    meaning, since = "Since when backups are configured.", settings.stat().st_mtime
    for target in known["targets"]:
        for verb in verbs:
            metrics.add("berth_backup_expected_since_seconds", meaning, since, {"target": target["name"], "verb": verb})


def secrets(metrics: Metrics, env_file: Path) -> None:
    """Measure since when secrets have their values, and since when former passwords are accepted."""
    applied = Applied.read(env_file)
    for name, since in sorted(applied.since.items()):
        meaning = "Since when a secret has its value."
        metrics.add("berth_secret_since_seconds", meaning, _seconds(since), {"secret": name})
    meaning = "Since when former passwords of databases are accepted; 0 where none is."
    metrics.add("berth_secrets_former_since_seconds", meaning, applied.changed)


def ever_live(file: Path) -> bool:
    return any(line["result"] == "live" and line["verb"] in ("release", "rollback") for line in _history(file))


def _history(file: Path) -> list[dict[str, Any]]:
    return [line for line in files.json_lines(file) if {"verb", "result", "at", "seconds"} <= set(line)]


def _seconds(when: str) -> float:
    return datetime.fromisoformat(when.replace("Z", "+00:00")).timestamp()
