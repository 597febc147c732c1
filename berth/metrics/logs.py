"""What the shippers of role log_shipping have written down."""

from __future__ import annotations

from pathlib import Path

from berth.metrics.exposition import Metrics

# Each shipper has a folder here, and in it a file of the same name: the cursor of the journal, and this number.
SHIPPERS = Path("/var/lib/berth-log-shipping")


def refused(metrics: Metrics, shippers: Path = SHIPPERS) -> None:
    meaning = "Lines that the log server has refused for good."
    for folder in sorted(shippers.glob("*")):
        file = folder / folder.name
        try:
            _, _, number = file.read_text().partition("\n")
        except (FileNotFoundError, PermissionError):
            # Before its first start has found where to begin; or of one that was stopped before its folder was opened.
            continue
        metrics.add("berth_log_lines_refused_total", meaning, int(number or 0), {"destination": folder.name})
