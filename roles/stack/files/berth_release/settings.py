"""What role stack writes down for this program, and where everything is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

PLACE = Path("/opt/berth/releases/settings.json")
COLOURS = ("blue", "green")
# The compose services of a release; the images are named after them, and beat runs the worker's.
IMAGES = ("auth_service", "user_service", "celery_worker", "frontend")


@dataclass(frozen=True)
class Settings:
    """One field for each variable of the role; seconds unless it says otherwise."""

    domain: str
    address: str
    root: Path
    edge: Path
    image_prefix: str
    keep: int
    snapshot_before_schema: bool
    schema_seconds: int
    healthy_seconds: int
    smoke_seconds: int
    confirm_seconds: int
    watch_seconds: int
    watch_requests: int
    watch_errors_percent: float
    slower_factor: float
    slower_ms: int
    drain_seconds: int

    @classmethod
    def read(cls, place: Path = PLACE) -> Settings:
        values = json.loads(place.read_text())
        return cls(**{**values, "root": Path(values["root"]), "edge": Path(values["edge"])})

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def history(self) -> Path:
        return self.root / "releases.jsonl"

    def folder(self, release: str) -> Path:
        """Return where a release keeps its compose file and, if it failed, its logs."""
        return self.releases / release


class Refused(Exception):  # noqa: N818  # "raise Refused" says it
    """A step says no. The reason is one sentence; the lines are the last ones of whoever is guilty."""

    def __init__(self, reason: str, guilty: str = "", lines: list[str] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.guilty = guilty
        self.lines = lines or []


def other(colour: str) -> str:
    return COLOURS[1] if colour == COLOURS[0] else COLOURS[0]
