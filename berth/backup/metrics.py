"""Metrics for Prometheus, and the ping of an external monitor."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import Any

from berth.backup.records import Records
from berth.backup.run import say
from berth.backup.settings import Settings
from berth.host import files

PING_SECONDS = 15
FILE = "berth_backup.prom"

# metric, what it is, field of a target's state
_MOMENTS = (
    ("berth_backup_last_success_timestamp_seconds", "End of the newest run", "success_at"),
    ("berth_backup_last_attempt_timestamp_seconds", "End of the last attempt", "attempt_at"),
    ("berth_backup_oplog_last_success_timestamp_seconds", "End of the newest increment", "oplog_at"),
    ("berth_backup_check_last_success_timestamp_seconds", "Last check without an error", "check_at"),
    ("berth_backup_forget_last_success_timestamp_seconds", "Last successful forget and prune", "forget_at"),
)
_REASONS = (
    ("berth_backup_last_result", "Whether the last attempt succeeded", "reason", "attempt_at"),
    ("berth_backup_oplog_result", "Whether the last increment succeeded", "oplog_reason", "oplog_reason"),
    ("berth_backup_check_result", "Whether the last check succeeded", "check_reason", "check_reason"),
    ("berth_backup_forget_result", "Whether the last forget and prune succeeded", "forget_reason", "forget_reason"),
)


def render(state: dict[str, Any]) -> str:
    """Return the metrics in Prometheus's text form."""
    lines: list[str] = []

    def metric(name: str, meaning: str, values: list[tuple[str, float]]) -> None:
        if values:
            lines.extend((f"# HELP {name} {meaning}.", f"# TYPE {name} gauge"))
            lines.extend(f"{name}{labels} {value:.3f}".removesuffix(".000") for labels, value in values)

    targets: dict[str, dict[str, Any]] = state["targets"]
    for name, meaning, key in _MOMENTS:
        metric(name, meaning, [(f'{{target="{one}"}}', known[key]) for one, known in targets.items() if key in known])
    for name, meaning, key, present in _REASONS:
        values = [
            (f'{{target="{one}"}}', float(not known.get(key))) for one, known in targets.items() if present in known
        ]
        metric(name, meaning, values)
    for name, meaning in (("bytes", "Size of a part of the newest run"), ("timestamp_seconds", "Age of that part")):
        metric(
            f"berth_backup_part_{name}",
            meaning,
            [
                (f'{{target="{one}",part="{part}"}}', size if name == "bytes" else known["success_at"])
                for one, known in targets.items()
                for part, size in known.get("parts", {}).items()
            ],
        )
    if "seconds" in state:
        metric("berth_backup_duration_seconds", "Duration of the last run", [("", state["seconds"])])
        metric("berth_backup_collections_missing", "Collections that the last run lacks", [("", len(state["missing"]))])
    return "\n".join(lines) + "\n"


def publish(settings: Settings, records: Records) -> None:
    files.write(settings.metrics / FILE, render(records.state()))


def ping(settings: Settings, well: bool) -> None:
    """Ping an external monitor, which alerts when the pings stop."""
    if not settings.ping:
        return
    address = settings.ping if well else f"{settings.ping.rstrip('/')}/fail"
    for attempt in range(3):
        try:
            with urllib.request.urlopen(address, timeout=PING_SECONDS):  # noqa: S310  # the owner's own address
                return
        except (OSError, ValueError) as error:
            # The address may contain a secret, so it is not printed.
            problem = getattr(error, "reason", None) or type(error).__name__
            say(f"The external monitor (vault_backup_ping_url) does not answer: {problem}.")
            time.sleep(attempt)
