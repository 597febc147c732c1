"""What the site's own records say: which release is live, how the last attempt ended, whether the site is closed."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from berth.host import files
from berth.host.live import ROUTES, read_live
from berth.host.lock import Lock
from berth.metrics.exposition import Metrics

# What the release program does behind gates.
JUDGED = {"release", "rollback", "upgrade"}


def releases(metrics: Metrics, root: Path) -> None:
    if led := read_live(root / ROUTES):
        labels = {"release": led.release, "colour": led.colour}
        metrics.add("berth_release_info", "The release that the edge leads to.", 1, labels)
    history = _history(root / "releases.jsonl")
    meaning = "Attempts to release or roll back, by how they ended."
    for (verb, result), count in sorted(Counter((line["verb"], line["result"]) for line in history).items()):
        metrics.add("berth_release_attempts_total", meaning, count, {"verb": verb, "result": result})
    judged = [line for line in history if _was_judged(line)]
    if judged:
        last = judged[-1]
        metrics.add("berth_release_last_attempt_success", "Whether the last went live.", int(last["result"] == "live"))
        metrics.add("berth_release_last_attempt_timestamp_seconds", "When it ended.", _seconds(last["at"]))
        metrics.add("berth_release_last_attempt_seconds", "How long it took.", float(last["seconds"]))
    run = Lock(root / "releases").current()
    meaning = "When the attempt under way began; 0 for none."
    metrics.add("berth_release_running_since_seconds", meaning, run.began if run else 0)
    closed = root / "traefik/dynamic/maintenance.yml"
    since = closed.stat().st_mtime if closed.exists() else 0
    metrics.add("berth_maintenance_since_seconds", "When the site was closed on purpose; 0 while it is open.", since)


def _was_judged(line: dict[str, Any]) -> bool:
    """Tell whether a release went so far that its gates could refuse it.

    Before it has a colour nothing is begun: an unknown release, images that did not come.
    """
    return line["verb"] in JUDGED and line.get("colour") != ""


def backups(metrics: Metrics, settings: Path) -> None:
    """Say since when backups should be made. Role backup writes their results, and nothing where there is none."""
    known = files.read_json(settings)
    if known is None:
        return
    verbs = ["run", "check", *(["oplog", "drill"] if known["mongo"] else [])]
    for target in known["targets"]:
        for verb in verbs:
            labels = {"target": target["name"], "verb": verb}
            metrics.add("berth_backup_expected_since_seconds", "Since when.", settings.stat().st_mtime, labels)


def ever_live(file: Path) -> bool:
    return any(line["result"] == "live" and line["verb"] in ("release", "rollback") for line in _history(file))


def _history(file: Path) -> list[dict[str, Any]]:
    return [line for line in files.json_lines(file) if {"verb", "result", "at", "seconds"} <= set(line)]


def _seconds(when: str) -> float:
    return datetime.fromisoformat(when.replace("Z", "+00:00")).timestamp()
