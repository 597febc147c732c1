"""What the edge counted: how many requests a colour answered, how many of them badly, and how fast."""

from __future__ import annotations

import re
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from berth_release.settings import Settings

# The edge's own port for health and figures; not published.
PORT = 8082
_LINE = re.compile(r"traefik_service_(requests_total|request_duration_seconds_bucket)\{([^}]*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Counted:
    """Sums since the edge started."""

    requests: float = 0
    failed: float = 0
    # Upper end in seconds -> requests at most that slow.
    buckets: dict[float, float] = field(default_factory=dict)

    def since(self, before: Counted) -> Counted:
        buckets = {end: count - before.buckets.get(end, 0) for end, count in self.buckets.items()}
        return Counted(self.requests - before.requests, self.failed - before.failed, buckets)

    @classmethod
    def read(cls, values: dict[str, Any]) -> Counted:
        """Take up what was written as JSON, which knows only text as keys."""
        buckets = {float(end): count for end, count in values.get("buckets", {}).items()}
        return cls(values.get("requests", 0), values.get("failed", 0), buckets)

    @property
    def failed_percent(self) -> float:
        return 100 * self.failed / self.requests if self.requests else 0.0

    def quantile_ms(self, part: float) -> float:
        """Return a quantile, interpolated within its bucket as Prometheus does."""
        total = self.buckets.get(float("inf"), 0)
        start = below = 0.0
        for end, count in sorted(self.buckets.items()):
            if count >= part * total:
                if end == float("inf"):
                    return start * 1000
                return (start + (end - start) * (part * total - below) / max(count - below, 1)) * 1000
            start, below = end, count
        return 0.0


def parse(text: str, colour: str) -> Counted:
    """Read what one edge says about the services of one colour."""
    found = Counted()
    for kind, labels, value in _LINE.findall(text):
        names = dict(_LABEL.findall(labels))
        # The edge forgets a trial's services, and what was counted of them, while their release is watched.
        if not names["service"].endswith(f"-{colour}@file") or "-trial-" in names["service"]:
            continue
        if kind == "requests_total":
            found.requests += float(value)
            found.failed += float(value) if names["code"].startswith("5") else 0
        else:
            end = float(names["le"].replace("+Inf", "inf"))
            found.buckets[end] = found.buckets.get(end, 0) + float(value)
    return found


def count(addresses: list[str], colour: str) -> Counted:
    """Ask every edge and add up. An edge that does not answer counts nothing; the watch then sees no traffic."""
    total = Counted()
    for address in addresses:
        try:
            with urllib.request.urlopen(f"http://{address}:{PORT}/metrics", timeout=3) as answer:
                part = parse(answer.read().decode(), colour)
        except OSError:
            continue
        total.requests += part.requests
        total.failed += part.failed
        for end, value in part.buckets.items():
            total.buckets[end] = total.buckets.get(end, 0) + value
    return total


def verdict(before: Counted, after: Counted, settings: Settings) -> str:
    """Return what got worse, as a sentence; empty where nothing did, or too little was seen to say."""
    if after.requests < settings.watch_requests:
        return ""
    allowed = before.failed_percent + settings.watch_errors_percent
    if after.failed_percent > allowed:
        return (
            f"{after.failed:.0f} of {after.requests:.0f} requests failed since the switch "
            f"({after.failed_percent:.1f} %, before {before.failed_percent:.1f} %)."
        )
    if before.requests < settings.watch_requests:
        return ""
    for part in (0.5, 0.9):
        old, new = before.quantile_ms(part), after.quantile_ms(part)
        if is_slower(old, new, settings):
            return f"{part:.0%} of the requests take up to {new:.0f} ms since the switch, before {old:.0f} ms."
    return ""


def is_slower(old: float, new: float, settings: Settings) -> bool:
    """By a factor, and by enough that somebody could notice."""
    return new > old * settings.slower_factor and new - old > settings.slower_ms
