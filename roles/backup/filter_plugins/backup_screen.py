"""The outcome that backup.yml prints: runs as a table, everything else as a sentence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

COLUMNS = ("RUN", "ENDED", "AGE", "SIZE", "REASON", "TARGETS")
WIDEST_REASON = 32


def age(moment: str, now: datetime) -> str:
    """Return an age, rounded for people."""
    hours = (now - datetime.fromisoformat(moment)).total_seconds() / 3600
    if hours < 1.5:
        return f"{max(hours * 60, 0):.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def size(count: float | None) -> str:
    """Return a size for people; a dash if it is not known."""
    if not count:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def at(moment: str) -> str:
    """Return a time for people."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def table(listed: dict[str, Any], now: datetime | None = None) -> str:
    """Format the output of `berth backup list` as a table, the newest run first, followed by unreachable targets."""
    runs: dict[str, dict[str, Any]] = {}
    silent = []
    for target, found in listed.items():
        if isinstance(found, dict):
            silent.append(f"{target}: {found['reason']}")
            continue
        for one in found:
            run = runs.setdefault(one["run"], {**one, "targets": []})
            run["targets"].append(target)
    newest = sorted(runs.values(), key=lambda run: str(run["time"]), reverse=True)
    rows = [COLUMNS, *(_row(run, now or datetime.now(UTC)) for run in newest)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*(lines if runs else ["There is no backup yet."]), *silent])


def _row(run: dict[str, Any], now: datetime) -> tuple[str, ...]:
    reason = run.get("reason") or ", ".join(run.get("tags") or []) or "-"
    if len(reason) > WIDEST_REASON:
        reason = f"{reason[: WIDEST_REASON - 3]}..."
    ended = run["time"]
    return (run["run"], at(ended), age(ended, now), size(run.get("bytes")), reason, ", ".join(run["targets"]))


def newest(known: dict[str, Any], now: datetime | None = None) -> str:
    """Format the newest run of each target from `berth backup status`: time, size, target."""
    targets: dict[str, list[str]] = {}
    for name, target in known["targets"].items():
        said = "none yet"
        if target.get("ended"):
            much = size(sum(target["bytes"].values()))
            said = f"{target['run']} ({age(target['ended'], now or datetime.now(UTC))} ago, {much})"
        targets.setdefault(said, []).append(name)
    return "; ".join(f"{said} on {', '.join(names)}" for said, names in targets.items())


def rekeyed(targets: dict[str, dict[str, str]]) -> str:
    """Format the output of `berth backup rekey`: which password opens which target."""
    kept = {
        name: said["previous"] for name, said in targets.items() if said.get("previous", "").startswith("opens until")
    }
    said = f"The new password opens {', '.join(targets)}."
    if not kept:
        return f"{said} The previous one opens none of them: take vault_backup_previous_password out of the vault."
    return f"{said} The previous one still {'; '.join(f'{why} (on {name})' for name, why in kept.items())}."


class FilterModule:
    """Loaded by Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {"backup_table": table, "backup_newest": newest, "backup_rekeyed": rekeyed}
