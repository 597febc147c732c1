"""Metrics of log shipping, from the state files that `berth ship` writes."""

from __future__ import annotations

from pathlib import Path

from berth.metrics.exposition import Metrics

# Each shipper has a folder here with a file of the same name: its cursor, and the number of refused lines.
SHIPPERS = Path("/var/lib/berth-log-shipping")


def refused(metrics: Metrics, shippers: Path = SHIPPERS) -> None:
    meaning = "Lines that the log server refused for good."
    for folder in sorted(shippers.glob("*")):
        file = folder / folder.name
        try:
            _, _, number = file.read_text().partition("\n")
        except (FileNotFoundError, PermissionError):
            # It has not stored a position yet, or was last started by a version that kept its folder private.
            continue
        metrics.add("berth_log_lines_refused_total", meaning, int(number or 0), {"destination": folder.name})
