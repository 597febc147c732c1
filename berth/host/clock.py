"""All reading of the clock and all sleeping is done here, so that tests need not wait."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic, sleep, time

__all__ = ["moment", "monotonic", "now", "sleep", "time"]


def moment(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC: 2026-11-29T02:14:00Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def now() -> str:
    return moment(time())
