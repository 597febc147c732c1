"""The metrics of DORA over 30 days, as `berth status --dora` computes them."""

from __future__ import annotations

from pathlib import Path

from berth.host import clock, files
from berth.metrics.exposition import Metrics
from berth.release.dora import DAYS, dora


def measure(metrics: Metrics, history: Path) -> None:
    """Measure what the history of releases says; what is not known has no sample, rather than 0."""
    known = dora(files.json_lines(history), clock.time())
    values = {
        "berth_dora_deployments": ("Releases that traffic was switched to.", known["deployments"]),
        "berth_dora_lead_time_seconds": ("Median from commit to switch.", known["lead_time_seconds"]),
        "berth_dora_change_failure_ratio": ("Part of them that was taken back.", known["change_failure_ratio"]),
        "berth_dora_time_to_restore_seconds": ("Median until a release is live.", known["time_to_restore_seconds"]),
    }
    for name, (meaning, value) in values.items():
        if value is not None:
            metrics.add(name, f"{meaning} In {DAYS} days.", value)
