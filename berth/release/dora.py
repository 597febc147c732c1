"""The four metrics of DORA (dora.dev), from the history of releases that this host keeps.

A deployment is a release that traffic was switched to, whether it stayed or not. An attempt that a gate refused is
none, since no visitor noticed it; a rollback is none, since it changes nothing.

Deployment frequency: deployments in the period.
Lead time for changes: from the newest commit of the released sources until the switch. Older commits of the same
    release took longer, and changes that were not committed have no time of their own.
Change failure rate: the part of deployments that were taken back: the watch or the check from outside rolled them back,
    the run failed or was interrupted after the switch, or an operator rolled back later. A fault that the next release
    fixes, without a rollback, is not seen.
Time to restore service: from the last switch to the failed release until another release is live, and stays.

A failure counts in the period of its deployment. Of times the median is taken: one bad night does not hide the rest.
Without a deployment there is no rate and no median, rather than 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from berth.host import clock

DAYS = 30
DAY = 86400
RELEASE, ROLLBACK = "release", "rollback"


@dataclass
class Deployment:
    """A release that traffic was switched to; times in seconds since 1970."""

    release: str
    at: float
    committed: float | None
    # What became of it, as words; empty where it was not taken back.
    failed: str = ""
    reason: str = ""
    # The last switch to it before it failed; and when another release was live.
    broken: float = 0
    restored: float | None = None

    @property
    def lead_seconds(self) -> float | None:
        # The controller's clock may be a little ahead of the host's.
        return None if self.committed is None else max(self.at - self.committed, 0)

    @property
    def restore_seconds(self) -> float | None:
        return None if self.restored is None else max(self.restored - self.broken, 0)

    @property
    def failure(self) -> dict[str, Any]:
        known = {"release": self.release, "at": clock.moment(self.at), "how": self.failed, "reason": self.reason}
        return {**known, "restore_seconds": self.restore_seconds}


def dora(lines: Iterable[dict[str, Any]], now: float, days: int = DAYS) -> dict[str, Any]:
    """Return the metrics of the last days; None for what nothing is known of.

    Args:
        lines: The history, the oldest first; lines of other verbs, and of earlier versions, may be among them.
        now: Seconds since 1970.
        days: The length of the period.
    """
    attempts = [line for line in lines if _is_attempt(line)]
    ever = deployments(attempts)
    found = [one for one in ever if one.at >= now - days * DAY]
    failures = [one for one in found if one.failed]
    leads = [one.lead_seconds for one in found if one.lead_seconds is not None]
    restores = [one.restore_seconds for one in failures if one.restore_seconds is not None]
    return {
        "days": days,
        "until": clock.moment(now),
        # Before that nothing is known, so that a younger history understates the frequency.
        "history_since": attempts[0]["at"] if attempts else "",
        "last_deployment": clock.moment(ever[-1].at) if ever else "",
        "deployments": len(found),
        "lead_time_seconds": median(leads) if leads else None,
        "lead_times": len(leads),
        "change_failure_ratio": round(len(failures) / len(found), 3) if found else None,
        "failures": [one.failure for one in failures],
        "time_to_restore_seconds": median(restores) if restores else None,
        "not_restored": len(failures) - len(restores),
    }


def deployments(lines: Iterable[dict[str, Any]]) -> list[Deployment]:
    """Return every deployment of these attempts, and what became of each."""
    reader = _Reader()
    for line in lines:
        if (at := _switched(line)) is None:
            continue
        if line["verb"] == RELEASE and line.get("from") == line["to"]:
            # Its settings or secrets changed, and nothing that was deployed.
            continue
        if line["verb"] == RELEASE:
            reader.released(line, at)
        # Where a rollback failed, what it should have replaced is live again.
        elif line["result"] == "live":
            reader.rolled_back(line, at)
    return reader.found


class _Reader:
    """What is known after each attempt."""

    def __init__(self) -> None:
        self.found: list[Deployment] = []
        # Failed, and no other release was live since.
        self._broken: list[Deployment] = []
        # Release -> the last switch to it.
        self._switched: dict[str, float] = {}

    def released(self, line: dict[str, Any], at: float) -> None:
        one = Deployment(line["to"], at, seconds(line["committed"]) if line.get("committed") else None)
        self.found.append(one)
        if line["result"] == "live":
            self._live(line["to"], at)
            return
        self._fail(one, f"{line['result']} after the switch", line, at)
        if line.get("from"):
            # The one before is live again; where there was none, nothing is.
            self._restored(seconds(line["at"]))

    def rolled_back(self, line: dict[str, Any], at: float) -> None:
        before = line.get("from", "")
        one = next((one for one in reversed(self.found) if one.release == before), None)
        if one and before != line["to"] and not one.failed:
            self._fail(one, f"rolled back by {line.get('by', 'an operator')}", line, self._switched[before])
        self._live(line["to"], at)

    def _fail(self, one: Deployment, how: str, line: dict[str, Any], since: float) -> None:
        one.failed, one.reason, one.broken = how, line.get("reason", ""), since
        self._broken.append(one)

    def _live(self, release: str, at: float) -> None:
        self._switched[release] = at
        self._restored(at)

    def _restored(self, at: float) -> None:
        for one in self._broken:
            one.restored = at
        self._broken.clear()


def seconds(moment: str) -> float:
    """Return a moment of ISO 8601, of any time zone, as seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


def _is_attempt(line: dict[str, Any]) -> bool:
    return line.get("verb") in (RELEASE, ROLLBACK) and {"at", "to", "result"} <= set(line)


def _switched(line: dict[str, Any]) -> float | None:
    """Return when traffic was switched to a release; None where it was not."""
    since = line.get("seconds_since_switch")
    if since is None:
        # Earlier versions did not write it, nor does a run that finds its release live already.
        return seconds(line["at"]) if line["result"] == "live" else None
    return seconds(line["at"]) - float(since)
